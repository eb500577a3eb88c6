"use strict";
// A click on a column's head sorts by it, first from the top down for numbers; rows without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const value = (row) => row.cells[column].dataset.sort;
    const rows = [...table.tBodies[0].rows];
    const numeric = rows.every((row) => value(row) === "" || Number.isFinite(Number(value(row))));
    const before = head.getAttribute("aria-sort");
    const order = before === "none" ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      const [one, two] = [value(a), value(b)];
      if (one === "" || two === "") return (one === "") - (two === "");
      return sign * (numeric ? one - two : one.localeCompare(two));
    });
    table.tBodies[0].append(...rows);
  }));
}
// What is said of a number stands beside it; with a mouse it shows while the pointer rests there.
for (const button of document.querySelectorAll("button.number")) {
  const tip = document.getElementById(button.getAttribute("popovertarget"));
  let resting;
  tip.addEventListener("toggle", () => {
    const place = button.getBoundingClientRect();
    const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
    const below = place.bottom + 6 + tip.offsetHeight < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? place.bottom + 6 : Math.max(8, place.top - 6 - tip.offsetHeight)}px`;
  });
  button.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse") resting = setTimeout(() => { if (!tip.matches(":popover-open")) tip.showPopover(); }, 350);
  });
  button.addEventListener("pointerleave", (event) => {
    clearTimeout(resting);
    if (event.pointerType === "mouse" && tip.matches(":popover-open")) tip.hidePopover();
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
