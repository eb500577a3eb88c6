"""What stands side by side on the page: each network under a short name, its branches as rows, one row the baseline."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from .loading import Decision, Evaluation, Key, Number, Training

__all__ = ["Entry", "Row", "entries", "find_baseline", "rows"]


@dataclass(frozen=True)
class Entry:
    """A network: its evaluation, its training, or both."""

    label: str
    evaluation: Evaluation | None = None
    training: Training | None = None


@dataclass(frozen=True)
class Row:
    """One branch of one network: a row of the table, a colour of the plots."""

    label: str  # the network's
    branch: str
    title: str  # both, the branch only where the network was measured by several
    evaluation: Evaluation
    color: int  # 0 is the baseline's

    @cached_property
    def numbers(self) -> dict[Key, Number]:
        """What was measured of this branch."""
        return {number.key: number for number in self.evaluation.numbers if number.branch == self.branch}

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Its answers to cue conflicts."""
        return self.evaluation.decisions.get(self.branch, ())


def entries(found: Sequence[Evaluation | Training]) -> list[Entry]:
    """Join what belongs to one network, in the order given, under names that tell them apart."""
    evaluations = _merged([part for part in found if isinstance(part, Evaluation)])
    trainings = _once([part for part in found if isinstance(part, Training)])
    owners = {id(training): _evaluation_of(training, evaluations) for training in trainings}
    joined: list[tuple[str, Evaluation | None, Training | None]] = []
    for evaluation in evaluations:
        own = next((training for training in trainings if owners[id(training)] is evaluation), None)
        joined.append((evaluation.name, evaluation, own))
    joined += [(str(training.folder), None, training) for training in trainings if owners[id(training)] is None]
    labels = _labels([name for name, _, _ in joined], [_place(evaluation, own) for _, evaluation, own in joined])
    return [Entry(label, evaluation, own) for label, (_, evaluation, own) in zip(labels, joined, strict=True)]


def rows(those: Sequence[Entry], baseline: Entry | None) -> list[Row]:
    """Every branch that was measured, the baseline's first branch first of all."""
    measured = [entry for entry in those if entry.evaluation is not None]
    measured.sort(key=lambda entry: entry is not baseline)  # stable
    made: list[Row] = []
    for entry in measured:
        assert entry.evaluation is not None
        branches = dict.fromkeys(number.branch for number in entry.evaluation.numbers)
        for branch in sorted(branches, key=lambda name: name != "main"):
            title = f"{entry.label} [{branch}]" if len(branches) > 1 or branch != "main" else entry.label
            made.append(Row(entry.label, branch, title, entry.evaluation, len(made)))
    return made


def find_baseline(those: Sequence[Entry], name: str | None) -> Entry | None:
    """The entry that `--baseline` names; without it the only vanilla one, or else the first that was evaluated.

    ValueError where the name fits none, or several.
    """
    measured = [entry for entry in those if entry.evaluation is not None]
    if name is None:
        vanilla = [entry for entry in measured if entry.evaluation and entry.evaluation.objective == "vanilla"]
        return vanilla[0] if len(vanilla) == 1 else next(iter(measured), None)
    fits = [entry for entry in measured if name == entry.label] or [entry for entry in measured if _fits(entry, name)]
    if len(fits) != 1:
        how_many = "several evaluations fit" if fits else "no evaluation is called so"
        raise ValueError(f"--baseline {name}: {how_many}; take one of {', '.join(entry.label for entry in measured)}")
    return fits[0]


def _fits(entry: Entry, name: str) -> bool:
    evaluation = entry.evaluation
    assert evaluation is not None
    full = os.path.normpath(name)
    names = (evaluation.name, str(evaluation.folder), evaluation.folder.name)
    return full in [os.path.normpath(known) for known in names] or _same_place(evaluation.folder, Path(name))


def _same_place(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _merged(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Evaluations of the same weights under the same name become one, unless they measured the same thing twice."""
    merged: list[Evaluation] = []
    for evaluation in evaluations:
        if any(_same_place(evaluation.folder, known.folder) for known in merged):
            continue
        for index, known in enumerate(merged):
            if (known.name, known.weights, known.version) == (evaluation.name, evaluation.weights, evaluation.version):
                twice = {(n.branch, n.key) for n in known.numbers} & {(n.branch, n.key) for n in evaluation.numbers}
                if known.weights and not twice:
                    merged[index] = _joined(known, evaluation)
                    break
        else:
            merged.append(evaluation)
    return merged


def _joined(one: Evaluation, other: Evaluation) -> Evaluation:
    return replace(
        one,
        numbers=one.numbers + other.numbers,
        decisions={**one.decisions, **other.decisions},
        drawn={**other.drawn, **one.drawn},
        legend=one.legend or other.legend,
        roots=one.roots + other.roots,
    )


def _once(trainings: Sequence[Training]) -> list[Training]:
    return list({training.folder.resolve(): training for training in trainings}.values())


def _evaluation_of(training: Training, evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The evaluation of this run: by its folder, or by its last name where no other has that."""
    for evaluation in evaluations:
        if _same_place(Path(evaluation.name), training.folder) or _same_place(evaluation.folder, training.folder):
            return evaluation
    last = [evaluation for evaluation in evaluations if _last(evaluation.name) == training.folder.resolve().name]
    return last[0] if len(last) == 1 else None


def _last(name: str) -> str:
    return os.path.basename(os.path.normpath(name)) or name


def _place(evaluation: Evaluation | None, training: Training | None) -> str:
    return str(evaluation.folder if evaluation else training.folder if training else "")


def _labels(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """The last part of each name, more of it where that is another's too, and the place where even names are equal."""
    lasts = [_last(name) for name in names]
    labels = []
    for name, last, place in zip(names, lasts, places, strict=True):
        if lasts.count(last) == 1:
            labels.append(last)
        elif names.count(name) == 1:
            labels.append(name)
        else:
            labels.append(f"{last} ({place})")
    return labels
