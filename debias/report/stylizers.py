"""Which networks were trained with the very stylizer that made the images they are measured on."""

import re
from collections.abc import Sequence
from pathlib import Path

from .entries import Entry, Row
from .verdict import TITLES

__all__ = ["own_stylizer"]

MADE = ("stylized", "cue-conflict")  # suites whose images a stylizer makes


def own_stylizer(those: Sequence[Entry], lines: Sequence[Row]) -> str:
    """A sentence for each stylizer that stands on both sides; lines[0] is the baseline, of which nothing is said."""
    sentences = []
    found = _shared(those, lines)
    for stylizer in dict.fromkeys(stylizer for stylizer, _, _ in found):
        names = list(dict.fromkeys(name for own, name, _ in found if own == stylizer))
        suites = [suite for suite in MADE if (stylizer, suite) in {(own, suite) for own, _, suite in found}]
        sentences.append(
            f"The images of {_listed([TITLES[suite] for suite in suites])} were made by the stylizer that "
            f"{_listed(names)} {'was' if len(names) == 1 else 'were'} trained with ({stylizer}), so a part of the gain "
            "there may be the generator's."
        )
    return " ".join(sentences)


def _shared(those: Sequence[Entry], lines: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Stylizer, network and suite."""
    trained = {entry.label: entry.training.settings.get("stylizer") for entry in those if entry.training}
    found = []
    for row in lines:
        stylizer = trained.get(row.label)
        if not isinstance(stylizer, str) or not stylizer or row.label == lines[0].label:
            continue
        name = Path(stylizer).name
        asked = re.compile(rf"\bstylizer (?:{re.escape(name)}|{re.escape(Path(stylizer).stem)})(?![\w./-])")
        for suite, _, _ in [key for key, number in row.numbers.items() if asked.search(number.measure.protocol)]:
            if suite in MADE:
                found.append((name, row.label, suite))
    return found


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
