"""The page in a browser: it asks no network, its tables sort, a phone needs no sideways scrolling, and it goes dark."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from debias.evaluation.measure import Measure
from debias.report.page import make_page

from . import folders as made

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# The WCAG 2 contrast of each element that has text of its own with what lies behind it; colours through a canvas, which
# knows every notation.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgba("Canvas");
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || element.closest("svg, script")) continue;
    const [one, two] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    found.push([contrast, element.className + ": " + element.textContent.slice(0, 30)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no other way
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report"))


def write_report(folder: Path) -> Path:
    """A page with all its sections, long and hostile names, and each step of the colour scale."""
    hostile = made.write_results(
        folder / "hostile",
        "<script>document.title = 'owned'</script>" + "long" * 40,
        [
            made.top1("clean", 500, note="<img src=x onerror=\"document.title='owned'\">"),
            Measure("fgsm", "top-1", 0.5, 10, "other protocol", cell="logit", headline=True),
        ],
        made.conflicts(0.5, ("'\"><svg onload=alert(1)>", "averyveryveryverylongclassname" * 3, "c")),
        weights="<b>" * 20,
        objective="other",
    )
    heats = [Measure("corruptions", "top-1", step / 24, 9, "corrupted", cell=f"c{step}/1") for step in range(25)]
    every = made.write_results(folder / "heats", "heats", heats, weights="ee" * 32, objective="heat")
    plan = {name: {"epochs": 2, "steps": 20} for name in ("vanilla", "debiased")}
    (folder / "compare.json").write_text(json.dumps({"plan": plan, "seconds": {"vanilla": 1300.0, "debiased": 900.0}}))
    path = folder / "report.html"
    path.write_bytes(make_page([*made.example(folder), hostile, every]))
    return path


class Seen:
    """A page with all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1400, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        self.page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def column(self, number: int) -> list[str]:
        """The sort values of a column of the first table, down the page."""
        rows = self.page.locator("table.headline tbody tr")
        return [rows.nth(i).locator("th, td").nth(number).get_attribute("data-sort") for i in range(rows.count())]

    def sorted_by(self) -> list[str]:
        """The aria-sort of each head."""
        return self.page.locator("table.headline thead th").evaluate_all("all => all.map(e => e.ariaSort)")  # type: ignore[no-any-return]

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture
def seen(browser: Any, report: Path) -> Seen:
    return Seen(browser, report)


def test_the_page_is_silent_and_asks_for_nothing(seen: Seen, report: Path) -> None:
    seen.page.mouse.wheel(0, 20000)
    seen.page.wait_for_timeout(200)
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith("data:")] == [report.as_uri()]
    assert seen.page.title() != "owned"


def test_a_script_that_got_in_would_not_run(browser: Any, report: Path, tmp_path: Path) -> None:
    path = tmp_path / "owned.html"
    path.write_text(report.read_text().replace("</main>", "<script>document.title = 'owned'</script></main>"))
    seen = Seen(browser, path)
    assert seen.page.title() != "owned"
    assert "Content Security Policy" in " ".join(seen.said)


def test_a_click_sorts_and_a_second_turns_it_round(seen: Seen) -> None:
    before = seen.column(1)
    numbers = sorted((float(value) for value in before if value), reverse=True)
    head = seen.page.locator("table.headline thead button").nth(1)
    head.click()
    assert [float(value) for value in seen.column(1) if value] == numbers
    assert seen.sorted_by()[:3] == ["none", "descending", "none"]
    assert seen.column(1)[-1] == ""  # not measured, and so last
    head.click()
    assert [float(value) for value in seen.column(1) if value] == numbers[::-1]
    assert seen.column(1)[-1] == ""
    assert seen.sorted_by()[1] == "ascending"
    seen.page.locator("table.headline thead button").nth(0).click()
    assert seen.sorted_by()[:2] == ["ascending", "none"]
    assert seen.column(0) == seen.run(f"{seen.column(0)}.sort((a, b) => a.localeCompare(b))")


def test_the_keyboard_sorts_and_opens_a_number(seen: Seen) -> None:
    seen.page.locator("table.headline thead button").nth(1).focus()
    seen.page.keyboard.press("Enter")
    assert seen.sorted_by()[1] == "descending"
    seen.page.keyboard.press("Space")
    assert seen.sorted_by()[1] == "ascending"
    number = seen.page.locator("button.number").first
    number.focus()
    seen.page.keyboard.press("Enter")
    tip = seen.page.locator(".tip:popover-open")
    assert "n = " in tip.inner_text()
    assert "95 % interval (wilson)" in tip.inner_text()
    seen.page.keyboard.press("Escape")
    assert tip.count() == 0


@pytest.mark.parametrize("width", [390, 1400])
def test_a_number_tells_its_protocol_beside_it_and_moves_nothing(browser: Any, report: Path, width: int) -> None:
    seen = Seen(browser, report, width)
    height = seen.run("document.documentElement.scrollHeight")
    for number in (seen.page.locator("button.number").first, seen.page.locator("button.number").nth(4)):
        number.click()
        tip, own = seen.page.locator(".tip:popover-open").bounding_box(), number.bounding_box()
        assert tip["x"] >= 0
        assert tip["x"] + tip["width"] <= width
        assert tip["y"] >= 0
        assert tip["y"] + tip["height"] <= 844
        assert tip["y"] >= own["y"] + own["height"] or tip["y"] + tip["height"] <= own["y"]
    assert seen.run("document.documentElement.scrollHeight") == height


def test_the_mouse_shows_a_number_by_resting_on_it(seen: Seen) -> None:
    seen.page.locator("button.number").first.hover()
    seen.page.locator(".tip:popover-open").wait_for(timeout=5000)
    seen.page.mouse.move(5, 5)
    seen.page.locator(".tip:popover-open").wait_for(state="detached", timeout=5000)


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_the_page_never_scrolls_sideways(browser: Any, report: Path, width: int) -> None:
    seen = Seen(browser, report, width)
    seen.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert seen.run("document.documentElement.scrollWidth") <= width
    # Every wide thing has a box that scrolls, which the keyboard reaches.
    assert seen.run("[...document.querySelectorAll('table')].every((t) => t.closest('.scroll[tabindex]'))")


def test_dark_mode_is_dark(browser: Any, report: Path) -> None:
    light, dark = (Seen(browser, report, scheme=scheme) for scheme in ("light", "dark"))
    shade = "getComputedStyle(document.body).backgroundColor"
    assert light.run(shade) == "rgb(255, 255, 255)"
    assert max(map(int, dark.run(shade)[4:-1].split(","))) < 50
    assert light.page.screenshot() != dark.page.screenshot()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(browser: Any, report: Path, scheme: str) -> None:
    seen = Seen(browser, report, scheme=scheme)
    seen.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = seen.run(CONTRASTS)
    assert len(found) > 200
    assert found[0][0] >= 4.5, found[:5]  # WCAG 2, level AA


def test_nothing_moves_while_the_page_loads(browser: Any, report: Path) -> None:
    seen = Seen(browser, report, 390)
    shift = """() => new Promise((done) => {
      let sum = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((entry) => { sum += entry.value; }))
        .observe({type: "layout-shift", buffered: true});
      setTimeout(() => done(sum), 300);
    })"""
    assert seen.run(shift) == 0


def test_in_print_every_part_is_open(browser: Any, report: Path) -> None:
    seen = Seen(browser, report)
    assert seen.run("[...document.querySelectorAll('details')].some((part) => !part.open)")
    seen.run("window.dispatchEvent(new Event('beforeprint'))")
    assert seen.run("[...document.querySelectorAll('details')].every((part) => part.open)")
    assert len(seen.page.pdf()) > 10000


def test_without_scripts_all_is_there(browser: Any, report: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(report.as_uri())
    page.locator("button.number").first.click()
    assert page.locator(".tip").first.is_visible()
    assert page.locator("table.headline tbody tr").count() == 5
