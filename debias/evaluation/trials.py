"""Per-trial decision files: who answered what to which cue conflict.

Two layouts are read, told apart by their first line. That of the published files (Geirhos et al., ICLR 2019, and
model-vs-human) has a line for each trial, with the shape as `category` and both cues in `imagename`:

    subj,session,trial,rt,object_response,category,condition,imagename

The other is the per_image.csv of `debias evaluate`, of which the rows of the suite `cue-conflict` are taken.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, get_args

from .cue_names import cue_pair
from .imagenet import categories16
from .shape_bias import NO_ANSWER, Trial

__all__ = ["PER_PERSON", "By", "Decisions", "Line", "decisions", "read_lines"]

By = Literal["maker", "subject", "file"]
PUBLISHED = ("subj", "session", "object_response", "category", "imagename")  # the columns that are read of either
OURS = ("suite", "branch", "file", "label", "texture", "answer")
SUITE = "cue-conflict"
PER_PERSON = 1280  # published trials of one decision maker, 80 of them with both cues of one category

PERSON = re.compile(r"subject-?\d+")
EXPERIMENT = re.compile(r"[^_]+_(.+)_session[-_]\d+")  # the published file names: EXPERIMENT_SUBJECT_session_1
MISSING = ("", "na", "nan")
INSTRUCTED = {"stg": "texture", "scg": "shape"}  # experiments by the code in the names of their images


@dataclass(frozen=True)
class Line:
    """One trial and where it stands."""

    path: Path
    number: int  # of the line in the file, from 1
    subject: str
    session: str
    image: str  # its name, without what a decision file puts before it
    trial: Trial

    @property
    def place(self) -> str:
        """As an error names it."""
        return f"{self.path}, line {self.number}"


@dataclass(frozen=True)
class Decisions:
    """All trials of one decision maker: a network, a person, or several people pooled."""

    name: str
    trials: tuple[Trial, ...]
    sittings: int  # subjects times their sessions
    published: bool  # its images are of the 16 published categories


def decisions(paths: Sequence[Path], by: By = "maker") -> list[Decisions]:
    """Read the files and pool the trials of each decision maker, in the order in which they come.

    By "maker" all people (`subject-01`, ...) are one, and every other name is one; by "subject" every name is; by
    "file" every file is. Raises OSError, and ValueError in one line with file and line number, for what cannot be
    read, and for an image that one subject answers twice in a session: pooled it would count twice.
    """
    if by not in get_args(By):
        raise ValueError(f"--by {by}: must be {', '.join(get_args(By))}")
    lines = [line for path in paths for line in read_lines(path)]
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(_group(line, by), []).append(line)
    names = _file_names(paths) if by == "file" else {}
    return [_pooled(names.get(key, key), group) for key, group in groups.items()]


def read_lines(path: Path) -> list[Line]:
    """The trials of one file; ValueError, one line with the number of the file's line, for a garbled one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _rows(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file of decisions ({error})") from error
    if not rows:
        raise ValueError(f"{path}: empty; a decision file has a line for each trial")
    header = [name.strip().lower() for name in rows[0][1]]
    for columns, read in ((PUBLISHED, _published), (OURS, _ours)):
        if set(columns) <= set(header):
            for number, row in rows[1:]:
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}, line {number}: {len(row)} fields where the first line names {len(header)}"
                    )
            places = [header.index(name) for name in columns]
            lines = read(path, [(number, [row[place].strip() for place in places]) for number, row in rows[1:]])
            if not lines:
                raise ValueError(f"{path}: no trials; a decision file has a line for each")
            return lines
    raise ValueError(
        f"{path}: its first line is neither that of a decision file ({','.join(PUBLISHED)} among its columns) "
        f"nor that of a per_image.csv of debias evaluate"
    )


def _rows(file: TextIO) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its last line."""
    reader = csv.reader(file, strict=True)
    return [(reader.line_num, row) for row in reader if row]


def _published(path: Path, rows: list[tuple[int, list[str]]]) -> list[Line]:
    lines = []
    for number, (subject, session, answer, category, name) in rows:
        place = f"{path}, line {number}"
        image = name.rpartition("/")[2].rpartition("_")[2]
        told = INSTRUCTED.get(next(iter(name.split("_")[1:]), ""))
        if told is not None:
            raise ValueError(
                f"{place}: {name} is of an experiment whose people were told to name the {told}; leave it out"
            )
        try:
            shape, texture = cue_pair(name)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        if shape != category:
            raise ValueError(f"{place}: category '{category}' for {image}, whose shape is '{shape}'")
        if not subject:
            raise ValueError(f"{place}: no subject")
        answer = NO_ANSWER if answer.lower() in MISSING else answer
        lines.append(Line(path, number, subject, session, image, Trial(shape, texture, answer)))
    known = {*categories16()}
    if _categories(lines) <= known:
        for line in lines:
            if line.trial.answer not in known and line.trial.answer != NO_ANSWER:
                raise ValueError(f"{line.place}: answer '{line.trial.answer}' is none of the 16 categories, nor na")
    return lines


def _ours(path: Path, rows: list[tuple[int, list[str]]]) -> list[Line]:
    rows = [(number, row) for number, row in rows if row[0] == SUITE]
    if not rows:
        raise ValueError(f"{path}: no rows of the suite {SUITE}; debias evaluate --suite {SUITE} makes them")
    branches = {row[1] for _, row in rows}
    name = path.resolve().parent.name
    lines = []
    for number, (_, branch, file, label, texture, answer) in rows:
        if not (label and texture and answer):
            raise ValueError(f"{path}, line {number}: a cue conflict needs a label, a texture and an answer")
        subject = name if branches == {"main"} else f"{name} ({branch})"
        lines.append(Line(path, number, subject, "", file, Trial(label, texture, answer)))
    return lines


def _categories(lines: Sequence[Line]) -> set[str]:
    return {category for line in lines for category in line.trial[:2]}


def _group(line: Line, by: By) -> str:
    if by == "file":
        return str(line.path)
    return "humans" if by == "maker" and PERSON.fullmatch(line.subject) else line.subject


def _pooled(name: str, lines: list[Line]) -> Decisions:
    seen: dict[tuple[str, str, str], Line] = {}
    for line in lines:
        first = seen.setdefault((line.subject, line.session, line.image), line)
        if first is not line:
            raise ValueError(
                f"{line.place}: {line.subject} answers {line.image} again, after {first.place}; "
                f"give each file once, and --by file where two networks share a name"
            )
    people = list(dict.fromkeys(line.subject for line in lines))
    if name == "humans":
        name = f"humans ({people[0]})" if len(people) == 1 else f"humans ({len(people)} people)"
    sittings = len({(line.subject, line.session) for line in lines})
    published = _categories(lines) <= {*categories16()}
    return Decisions(name, tuple(line.trial for line in lines), sittings, published)


def _file_names(paths: Sequence[Path]) -> dict[str, str]:
    """For each path the shortest name that no other has: the network's or person's, the file's, the path."""
    names: dict[str, str] = {}
    for make in (str, _stem, _subject):
        found = {str(path): make(path) for path in paths}
        counts = list(found.values())
        names |= {path: name for path, name in found.items() if name and counts.count(name) == 1}
    return names


def _stem(path: Path) -> str:
    return path.resolve().parent.name if path.name == "per_image.csv" else path.stem


def _subject(path: Path) -> str:
    found = EXPERIMENT.fullmatch(path.stem)
    return found[1] if found else ""
