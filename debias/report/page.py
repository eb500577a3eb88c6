"""The page: sections made of what was loaded, those without data left out, and all of it in one file.

Equal folders under equal names make equal bytes: no date, no place. Text from folders is escaped by jinja2 or by
`pictures`, and the page forbids itself every request and every script but its own.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from debias import __version__

from .budgets import budgets_section
from .cue_sections import bias_section, confusion_section, leaning_section, strips_section
from .curve_sections import corruptions_sections, other_settings, training_section
from .drawn import drawn_section
from .entries import Entry, Row, entries, find_baseline, rows
from .loading import load
from .notes import notes_section
from .pictures import name_html
from .stylizers import own_stylizer
from .table import table_section
from .verdict import headline, of_row, speaks, stakes, verdict

__all__ = ["make_page"]


def make_page(folders: Sequence[Path], baseline: str | None = None, title: str | None = None) -> bytes:
    """The HTML of a report on `folders`; ValueError, one line, for a folder or a baseline that will not do."""
    those = entries([part for folder in folders for part in load(folder)])
    base = find_baseline(those, baseline)
    lines = rows(those, base)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["name"] = name_html
    script = _file("page.js").strip()
    html = environment.from_string(_file("report.html")).render(
        title=title or _title(those, lines),
        verdict=verdict(lines),
        stakes=stakes(headline(lines)),
        generator=own_stylizer(those, lines),
        others=_others(lines),
        differing=other_settings(those),
        table=table_section(lines),
        bias=bias_section(lines),
        corruptions=corruptions_sections(lines),
        training=training_section(those, lines),
        budgets=budgets_section(those, lines),
        drawn=drawn_section(lines),
        confusion=confusion_section(lines),
        strips=strips_section(lines),
        leaning=leaning_section(lines),
        notes=notes_section(those, lines),
        version=__version__,
        style=Markup(_file("style.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return _printable(html).encode("utf-8", "replace")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def _printable(text: str) -> str:
    """Without control characters, which HTML forbids and of which a name may hold any."""
    return "".join(c for c in text if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160))


def _title(those: Sequence[Entry], lines: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row.label for row in lines)) or [entry.label for entry in those]
    if len(names) == 1:
        return names[0]
    if len(names) > 4:
        return f"{len(names) - 1} networks against {names[0]}" if lines else f"{len(names)} trainings"
    if not lines:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    others = names[1:]
    return f"{', '.join(others[:-1])}{' and ' if len(others) > 1 else ''}{others[-1]} against {names[0]}"


def _others(lines: Sequence[Row]) -> list[str]:
    """A sentence for each network that the verdict does not speak of."""
    keys = headline(lines)
    told = verdict(lines)
    sentences = [of_row(row, lines[0], keys) for row in lines[1:] if speaks(row, lines)]
    return [sentence for sentence in sentences if sentence != told]
