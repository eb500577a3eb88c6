"""What an evaluation leaves: every number with all that it needs to be believed, and the answers it was counted on.

    RESULTS/results.json     subject, settings, and each measure with n, interval, protocol, preprocessing and digests
    RESULTS/per_image.csv    suite, cell, branch, file, label, texture, answer, confidence, flags: a line an image
    RESULTS/table.md, .tex   the measures for people
    RESULTS/cells/           finished cells (`store`)

Equal evaluations write equal bytes: there are no dates, and no times. `recompute` counts every number again from
per_image.csv.
"""

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from debias import __version__
from debias.pipelines.loading.scan import BadFile
from debias.style_transfer.files import sha256_file, write_atomically
from debias.train.weights_file import InputSpec

from . import imagenet
from .cell import Row
from .measure import Measure
from .store import confidence_text, csv_text, key_of, row_of
from .subject import Subject
from .suites import Request, find_suite
from .tables import markdown, marked, tex

__all__ = ["FORMAT", "VERSION", "Found", "Results", "read_results", "recompute", "subject_of"]

FORMAT, VERSION = "debias evaluation", 1
PER_IMAGE = ("suite", "cell", "branch", "file", "label", "texture", "answer", "confidence", "flags")
IMAGENET = "ImageNet's 1000 WordNet ids"
REQUESTED = ("data", "published", "seed", "attack_eps", "attack_steps", "attack_step_size")

ByCell = Mapping[tuple[str, str], Sequence[Row]]


@dataclass(frozen=True)
class Found:
    """A measure of one branch, and how the images that it was counted on were made."""

    measure: Measure
    branch: str
    data: str  # sha256 over names, labels and bytes of those images
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Results:
    """An evaluation that is done. `rows` are by branch and then by suite and cell."""

    subject: Subject
    settings: Mapping[str, Any]
    found: tuple[Found, ...]
    rows: Mapping[str, ByCell]
    bad: tuple[BadFile, ...]  # files that could not be read, and are in no number
    images: Mapping[str, Any] = field(default_factory=dict)  # by "suite/cell" {"root": the folder its files lie in}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures, branch after branch."""
        return tuple(found.measure for found in self.found)

    def value(self, suite: str, metric: str, *, cell: str = "", branch: str | None = None) -> float:
        """One number; of the first branch where none is named. KeyError where there is none."""
        for found in self.found:
            measure = found.measure
            same = (measure.suite, measure.metric, measure.cell) == (suite, metric, cell)
            if same and branch in (None, found.branch):
                return measure.value
        raise KeyError(f"no {metric} of {suite} {cell}".rstrip())

    def table(self) -> str:
        """The measures that stand in the table across models, as Markdown."""
        return markdown([(found.branch, found.measure) for found in self.found if found.measure.headline])

    def write(self, folder: Path) -> None:
        """Write results.json, per_image.csv, table.md and table.tex: each whole or not at all, results.json last."""
        answers = self.per_image().encode("utf-8", "surrogateescape")
        write_atomically(folder / "per_image.csv", answers)
        self.write_tables(folder)
        write_atomically(folder / "results.json", self.json(hashlib.sha256(answers).hexdigest()).encode())

    def write_tables(self, folder: Path) -> None:
        """Write table.md, which has every measure, and table.tex."""
        headline = [(found.branch, found.measure) for found in self.found if found.measure.headline]
        write_atomically(folder / "table.md", self._page().encode())
        write_atomically(folder / "table.tex", tex(headline).encode())

    def further(self) -> dict[str, Any]:
        """What else results.json has."""
        return {}

    def json(self, per_image_sha256: str | None) -> str:
        """The text of results.json, beside a per_image.csv of this sha256; what is not defined is null."""
        said = {
            "format": FORMAT,
            "version": VERSION,
            "debias": __version__,
            "subject": _subject_facts(self.subject),
            "settings": dict(self.settings),
            "left_out": {file.name: file.reason for file in self.bad},
            "images": dict(self.images),
            "per_image_sha256": per_image_sha256,
            **self.further(),
            "measures": [self._facts(found) for found in self.found],
        }
        return json.dumps(said, indent=2, allow_nan=False) + "\n"

    def per_image(self) -> str:
        """The text of per_image.csv."""
        lines = (
            (
                suite,
                cell,
                branch,
                row.file,
                row.label,
                row.texture,
                row.answer,
                confidence_text(row.confidence),
                row.flags,
            )
            for branch, cells in self.rows.items()
            for (suite, cell), rows in cells.items()
            for row in rows
        )
        return csv_text(PER_IMAGE, lines)

    def _facts(self, found: Found) -> dict[str, Any]:
        of_measure = {name: _plain(value) for name, value in asdict(found.measure).items()}
        return of_measure | {
            "branch": found.branch,
            "weights": self.subject.weights,
            "data": found.data,
            "preprocessing": dict(found.preprocessing),
        }

    def _page(self) -> str:
        pairs = [(found.branch, found.measure) for found in self.found]
        headline, others = ([pair for pair in pairs if pair[1].headline is wanted] for wanted in (True, False))
        parts = [
            f"# {marked(self.subject.name)}",
            f"Weights sha256 `{self.subject.weights}`, network `{self.subject.model}`.",
            markdown(headline, protocols=True),
        ]
        if others:
            parts += ["## Details", markdown(others, protocols=True)]
        if self.bad:
            lines = (f"- {marked(file.name)}: {marked(file.reason)}" for file in self.bad)
            parts += ["## Files that could not be read, and are in no number", "\n".join(lines)]
        return "\n\n".join(parts) + "\n"


def found_in(
    measures: Iterable[Measure], branch: str, cells: Mapping[tuple[str, str], tuple[str, Mapping[str, Any]]]
) -> Iterator[Found]:
    """Each measure with the digest and the preprocessing of its cell, or of its suite's cells together."""
    for measure in measures:
        own = cells.get((measure.suite, measure.cell))
        every = [facts for (suite, _), facts in cells.items() if suite == measure.suite]
        used = [own] if own is not None else every
        digests = list(dict.fromkeys(digest for digest, _ in used))
        data = digests[0] if len(digests) == 1 else key_of({"data": digests})
        yield Found(measure, branch, data, _together([made for _, made in used]))


def read_results(folder: str | Path) -> dict[str, Any]:
    """What RESULTS/results.json says.

    Raises ValueError, one line, where there is none that can be read, or where per_image.csv has other answers, as
    those of an evaluation that was killed between the two files.
    """
    path = Path(folder) / "results.json"
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no results of debias evaluate ({error})") from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ValueError(f"{path}: not written by debias evaluate")
    if said.get("version") != VERSION:
        raise ValueError(f"{path}: written by another version of debias ({said.get('debias')}); evaluate again")
    answers = path.with_name("per_image.csv")
    expected = said.get("per_image_sha256")
    if expected is not None and answers.is_file() and sha256_file(answers) != expected:
        raise ValueError(f"{answers} is not the one that results.json was counted from; evaluate again")
    return said


def read_rows(path: str | Path) -> dict[str, dict[tuple[str, str], list[Row]]]:
    """The rows of a per_image.csv, by branch and then by suite and cell, in file order; ValueError for another."""
    rows: dict[str, dict[tuple[str, str], list[Row]]] = {}
    with Path(path).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != PER_IMAGE:
            raise ValueError(f"{path}: not a per_image.csv of debias evaluate; its columns are {reader.fieldnames}")
        for entry in reader:
            branch = rows.setdefault(entry.pop("branch"), {})
            cell = branch.setdefault((entry.pop("suite"), entry.pop("cell")), [])
            cell.append(row_of(entry))
    return rows


def recompute(per_image: str | Path) -> list[tuple[str, Measure]]:
    """Every measure, with its branch, counted again from a per_image.csv and the results.json beside it.

    The latter gives what the network was asked, not what it answered. No network and no image is read.
    """
    path = Path(per_image)
    said = read_results(path.parent)
    settings = said["settings"]
    baseline = settings.get("baseline")
    request = Request(
        subject=subject_of(said["subject"]),
        baseline=None if baseline is None else Path(baseline),
        splits=settings.get("splits", {}),
        **{name: settings[name] for name in REQUESTED},
    )
    return [
        (branch, measure)
        for branch, cells in read_rows(path).items()
        for suite in settings["suites"]
        for measure in find_suite(suite).measures(cells, request)
    ]


def _subject_facts(subject: Subject) -> dict[str, Any]:
    facts = {field.name: getattr(subject, field.name) for field in fields(subject) if field.name != "network"}
    classes = IMAGENET if subject.classes == imagenet.wnids() else list(subject.classes)
    return facts | {"spec": asdict(subject.spec), "classes": classes, "branches": list(subject.branches)}


def subject_of(facts: Mapping[str, Any]) -> Subject:
    """The subject without its network."""
    classes = imagenet.wnids() if facts["classes"] == IMAGENET else tuple(facts["classes"])
    rest = {"classes": classes, "branches": tuple(facts["branches"]), "spec": InputSpec(**facts["spec"])}
    return Subject(network=nn.Identity(), **{**facts, **rest})


def _together(made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The preprocessing of several cells; a field in which they differ lists what there is."""
    together: dict[str, Any] = {}
    for name in made[0] if made else ():
        values = [facts[name] for facts in made]
        distinct = [value for index, value in enumerate(values) if value not in values[:index]]
        together[name] = distinct[0] if len(distinct) == 1 else distinct
    return together


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
