"""The page's first sentence, computed: which network moved what over the baseline, and whether intervals overlap."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..wording import counted
from .entries import Row
from .loading import Key
from .numbers import CHANCE, Difference, difference, interval, signed, written

__all__ = ["TITLES", "Change", "changes", "headline", "name_of", "of_row", "speaks", "stakes", "verdict"]

TITLES = {
    "clean": "Clean",
    "corruptions": "Corruptions",
    "coco-c": "COCO-C",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "stylized": "Stylised",
    "cue-conflict": "Cue conflict",
    "silhouettes": "Silhouettes",
    "edges": "Edges",
    "imagenet-a": "ImageNet-A",
    "imagenet-r": "ImageNet-R",
    "sketch": "Sketch",
    "v2": "ImageNet-V2",
}
SPOKEN = {
    "clean": "clean accuracy",
    "corruptions": "accuracy under corruptions",
    "fgsm": "accuracy under FGSM",
    "pgd": "accuracy under PGD",
    "stylized": "accuracy on stylised images",
    "cue-conflict": "accuracy on cue conflicts",
    "silhouettes": "accuracy on silhouettes",
    "edges": "accuracy on edges",
    "sketch": "accuracy on sketches",
}
OWN = ("shape bias", "cue accuracy", "mCE", "relative mCE", "mPC", "rPC")  # metrics that need no suite beside them

STAKES = (
    (
        ("cue-conflict",),
        "A cat in elephant skin is a cat to people; a network with a low shape bias says elephant, and may err where "
        "surfaces look different from those of its training.",
    ),
    (
        ("fgsm", "pgd", "corruptions", "coco-c", "stylized"),
        "Accuracy on changed images says what is left of it when they are not as clean as the test set.",
    ),
)
ATTACKS = ("fgsm", "pgd")
ONE_SET = {"cue-conflict": "stylized"}  # suites of the same made images, which count once
TOLD = 5  # numbers that a sentence names of each kind; of more it gives the count


@dataclass(frozen=True)
class Change:
    """One headline number of a network beside the baseline's."""

    key: Key
    unit: str
    before: float
    after: float
    difference: Difference

    @property
    def told(self) -> str:
        """`shape bias +39.5 (19.5 → 59.0)`."""
        return f"{name_of(self.key)} {signed(self.difference.value, self.unit)} ({self._ends})"

    @property
    def bare(self) -> str:
        """`mCE is lower by 4.0 (80.0 → 76.0)`: which way, and nothing of whether that is any good."""
        by = signed(self.difference.value, self.unit)
        way = "as before" if by.startswith("±") else f"{'lower' if by.startswith('−') else 'higher'} by {by[1:]}"
        return f"{name_of(self.key)} is {way} ({self._ends})"

    @property
    def _ends(self) -> str:
        return f"{written(self.before, self.unit)} → {written(self.after, self.unit)}"


@dataclass(frozen=True)
class Sorted:
    """The changes of one network, by what may be said of them."""

    gains: list[Change] = field(default_factory=list)  # intervals apart
    losses: list[Change] = field(default_factory=list)
    moves: list[Change] = field(default_factory=list)  # apart, and neither direction is better
    unclear: list[Change] = field(default_factory=list)  # intervals overlap
    bare: list[Change] = field(default_factory=list)  # no interval to judge by
    doubted: list[Change] = field(default_factory=list)  # a note says that it says nothing


def headline(rows: Sequence[Row]) -> list[Key]:
    """The keys of the table's columns, in the order they were first measured in: whole suites where none is marked."""
    every = [number for row in rows for number in row.numbers.values()]
    marked = [number for number in every if number.measure.headline]
    return list(dict.fromkeys(n.key for n in marked or every if marked or not n.measure.cell))


def name_of(key: Key) -> str:
    """The key in a sentence."""
    suite, cell, metric = key
    title = TITLES.get(suite, suite)
    if metric == "top-1":
        name = SPOKEN.get(suite, f"accuracy on {title}")
    else:
        name = "calibration error" if metric == "ECE" else metric if metric in OWN else f"{title} {metric}"
    if not cell:
        return name
    return f"{name} on {cell}" if suite in ATTACKS else f"{name} ({cell})"


def stakes(keys: Sequence[Key]) -> str:
    """Why a reader should care, of what was measured; empty where nothing of it was."""
    measured = {suite for suite, _, _ in keys}
    return " ".join(text for suites, text in STAKES if measured & set(suites))


def changes(row: Row, base: Row, keys: Sequence[Key]) -> list[Change]:
    """What may be subtracted of `row` and `base`, in the order of `keys`."""
    made = []
    for key in keys:
        one, other = row.numbers.get(key), base.numbers.get(key)
        found = difference(one, other) if one and other else None
        if one and other and found:
            made.append(Change(key, one.measure.unit, other.measure.value, one.measure.value, found))
    return made


def verdict(rows: Sequence[Row]) -> str:
    """One sentence on the network that gained most clearly; rows[0] is the baseline."""
    if not rows:
        return "No evaluation is among the inputs, so nothing is compared here; debias evaluate makes the numbers."
    keys = headline(rows)
    base, others = rows[0], [row for row in rows[1:] if speaks(row, rows)]
    if not others:
        return _alone(base, keys)
    lead = max(others, key=lambda row: _rank(changes(row, base, keys)))
    return of_row(lead, base, keys)


def of_row(row: Row, base: Row, keys: Sequence[Key]) -> str:
    """One sentence on what `row` changed over `base`."""
    found = changes(row, base, keys)
    if not any(key in row.numbers and key in base.numbers for key in keys):
        return f"{row.title} and {base.title} were measured on nothing in common."
    if not found:
        return f"{row.title} and {base.title} share no number that may be subtracted: protocols or images differ."
    kinds = _sorted(found)
    parts = []
    if kinds.gains:
        parts.append(f"improves {_listed(kinds.gains)}")
    if kinds.moves:
        parts.append(f"moves {_listed(kinds.moves)}")
    if kinds.losses:
        parts.append(f"worsens {_listed(kinds.losses)}")
    clear = f"Over {base.title}, {row.title} " + _joined(parts) if parts else ""
    if clear:
        clear += ", with 95 % intervals apart"
    rest = []
    if kinds.unclear:
        rest.append(f"intervals overlap for {_listed(kinds.unclear)}")
    rest += [_doubted(change) for change in kinds.doubted]
    if kinds.bare:
        rest.append(f"with no interval to judge by, {_cut([change.bare for change in kinds.bare])}")
    if not clear:
        return f"Over {base.title}, {row.title} shows no clear change: {'; '.join(rest)}."
    return "; ".join([clear, *rest]) + "."


def speaks(row: Row, rows: Sequence[Row]) -> bool:
    """Whether the row is its network's deployed branch: main, or the first where main was not measured."""
    return row is next(other for other in rows if other.label == row.label) and row.label != rows[0].label


def _alone(row: Row, keys: Sequence[Key]) -> str:
    told = []
    for key in keys[:4]:
        number = row.numbers.get(key)
        if number and CHANCE in number.measure.note and "shape bias" in number.measure.metric:
            told.append(f"{name_of(key)} not told, since {number.measure.note}")
        elif number:
            measure = number.measure
            ends = f" ({interval(number)})" if interval(number) else ""
            unit = "" if measure.unit == "count" else " %"
            told.append(f"{name_of(key)} {written(measure.value, measure.unit)}{unit}{ends}")
    more = f"; {counted(len(keys) - 4, 'more number')} below" if len(keys) > 4 else ""
    return f"{row.title} alone, with no baseline to compare to: {', '.join(told) or 'no number'}{more}."


def _sorted(found: Sequence[Change]) -> Sorted:
    kinds = Sorted()
    for change in found:
        if change.difference.doubt:
            kinds.doubted.append(change)
        elif change.difference.apart is None:
            kinds.bare.append(change)
        else:
            places = {"better": kinds.gains, "worse": kinds.losses, "moved": kinds.moves, "unclear": kinds.unclear}
            places[change.difference.kind].append(change)
    return kinds


def _doubted(change: Change) -> str:
    """A change that counts for nothing, and why; a bias at chance without its numbers."""
    reason = change.difference.doubt
    return (
        f"{name_of(change.key)} is left out: {reason}"
        if CHANCE in reason
        else f"unclear: {change.told}, since {reason}"
    )


def _rank(found: Sequence[Change]) -> tuple[int, float, float]:
    """More suites with clear gains less those with clear losses first; then the larger sum of gains; then of moves."""
    suites: dict[str, list[Change]] = {}
    for change in found:
        suites.setdefault(ONE_SET.get(change.key[0], change.key[0]), []).append(change)
    ranks = [_rank_in(suite, those) for suite, those in suites.items()]
    return sum(rank for rank, _ in ranks), sum(most for _, most in ranks), _most(_sorted(found).moves)


def _rank_in(suite: str, found: Sequence[Change]) -> tuple[int, float]:
    """1, 0 or -1, and the largest clear gain; an attack is what the loss does that leaves the network least."""
    if suite in ATTACKS:
        found = [min(found, key=lambda change: change.after)]
    kinds = _sorted(found)
    return bool(kinds.gains) - bool(kinds.losses), _most(kinds.gains)


def _most(those: Sequence[Change]) -> float:
    return max((abs(change.difference.value) for change in those if change.unit == "share"), default=0.0)


def _listed(those: Sequence[Change]) -> str:
    return _cut([change.told for change in those])


def _cut(told: Sequence[str]) -> str:
    return _joined([*told[:TOLD], f"{len(told) - TOLD} more"] if len(told) > TOLD + 1 else told)


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
