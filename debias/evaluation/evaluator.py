"""An evaluation from its settings: subject, suites, cells, answers, measures, and the folder it leaves."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch

from debias.pipelines.loading.listing import other_files
from debias.pipelines.loading.scan import SHOWN, BadFile
from debias.style_transfer.files import folder_lock
from debias.train.world import World, join

from ..wording import counted
from .baseline import read_baseline
from .cell import Row
from .dense import DENSE
from .dense.subjects import dense_card, load_dense
from .labels import evaluated_split
from .results import Results, found_in
from .runner import MEAN, Job, Runner, RunnerSettings
from .store import Store
from .subject import Subject
from .subjects import load_subject
from .suites import Request, find_suite
from .trained_on import trained_on

__all__ = ["AttackSettings", "Evaluation", "Silent", "Teller", "evaluated"]

ALL = "all"


class Teller(Protocol):
    """Whom an evaluation tells how it goes."""

    def say(self, text: str) -> None:
        """A line of news."""

    def check(self, done: int, total: int) -> None:
        """So many of the files of one listing have been checked."""

    def begin(self, done: int, total: int) -> None:
        """The answers begin; `done` of `total` images were answered in an earlier run."""

    def answered(self, count: int, note: str) -> None:
        """So many more images were answered, those of the cell that `note` names."""


class Silent:
    """A teller that tells nobody."""

    def say(self, text: str) -> None:
        """Nothing."""

    def check(self, done: int, total: int) -> None:
        """Nothing."""

    def begin(self, done: int, total: int) -> None:
        """Nothing."""

    def answered(self, count: int, note: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class AttackSettings:
    """The attacks of the suites fgsm and pgd, whose own values hold where nothing is said."""

    attack_eps: Annotated[str | None, "largest change of a pixel, in pixels of [0, 1]: fgsm 16/255, pgd 4/255"] = None
    attack_steps: Annotated[int | None, "steps of pgd: 10"] = None
    attack_step_size: Annotated[
        str | None, "length of one step of pgd: 1/255; with --attack-eps alone 2.5 eps / steps"
    ] = None


@dataclass(frozen=True)
class Evaluation:
    """What is asked of a network. `branch` is one of its branches, `all` of them, or the `mean` of their probabilities.

    `data` are clean images, `published` folders by suite, `made` where made images are kept (the user's cache folder
    for None), `baseline` a folder of results, `ignore_index` a number in masks that is no class.
    """

    suites: tuple[str, ...] = ("clean",)
    data: str | None = None
    published: Mapping[str, str] = field(default_factory=dict)
    branch: str = "main"
    made: Path | None = None
    baseline: Path | None = None
    ignore_index: int | None = None
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    attack: AttackSettings = field(default_factory=AttackSettings)

    def __post_init__(self) -> None:
        if not self.suites:
            raise ValueError("--suite names no suite; give one or more, clean for instance")
        for name in (*self.suites, *self.published):
            find_suite(name)
        if len(set(self.suites)) != len(self.suites):
            raise ValueError(f"--suite {','.join(self.suites)}: a suite is named twice")
        for name in self.published:
            if name not in self.suites:
                raise ValueError(f"--data {name}={self.published[name]}: --suite does not name {name}; add it there")

    def flat(self) -> dict[str, Any]:
        """Every setting by its flag's name."""
        return {
            "suites": list(self.suites),
            "data": self.data,
            "published": dict(self.published),
            "branch": self.branch,
            "baseline": None if self.baseline is None else str(self.baseline),
            **({} if self.ignore_index is None else {"ignore_index": self.ignore_index}),
            **asdict(self.attack),
            **asdict(self.runner),
        }

    def run(
        self,
        subject: Subject | str | Path,
        out: Path | None = None,
        *,
        device: str = "cpu",
        teller: Teller | None = None,
        **of_subject: Any,
    ) -> Results | None:
        """Answer, measure, and write the folder `out` (None writes nothing); the results on the first process alone.

        `of_subject` goes to `load_subject` where `subject` is a name. The same call again goes on where a killed one
        stopped. Raises ValueError, one line that names the flag or file, before anything is answered.
        """
        with contextlib.ExitStack() as held:
            world = held.enter_context(join(device))
            if out is not None and world.leads:
                held.enter_context(folder_lock(out))
            if not isinstance(subject, Subject):
                subject = _loaded(subject, world.device, of_subject)
            told = teller if teller and world.leads else Silent()
            if subject.task in DENSE:
                from .dense.run import DenseRun

                return DenseRun(self, subject, out, world, told).results()
            if self.ignore_index is not None:
                raise ValueError(f"--ignore-index {self.ignore_index}: for the masks of segmentation; leave it out")
            if self.data is not None and trained_on(subject.name, self.data):
                told.say(f"{subject.name} was trained on these images: the numbers say nothing of others")
            return _Run(self, subject, out, world, told).results()


def _loaded(name: str | Path, device: torch.device, flags: Mapping[str, Any]) -> Subject:
    """The subject of this name, whatever its task."""
    card = dense_card(name)
    return (
        load_subject(name, device=device, **flags) if card is None else load_dense(name, card, device=device, **flags)
    )


def evaluated(
    model: Subject | str | Path,
    suites: str | Sequence[str],
    data: str | Path | Mapping[str, str | Path] | None,
    *,
    out: str | Path | None,
    branch: str,
    device: str,
    **settings: Any,
) -> Results:
    """What `debias.evaluation.evaluate` does. TypeError for a setting that there is not."""
    given = {"": data} if data is None or isinstance(data, (str, Path)) else dict(data)
    plain = given.pop("", None)
    groups: dict[str, Any] = {"runner": RunnerSettings, "attack": AttackSettings}
    own = {
        name: kind(**{key.name: settings.pop(key.name) for key in fields(kind) if key.name in settings})
        for name, kind in groups.items()
    }
    folders: dict[str, Any] = {
        name: Path(settings.pop(name)) for name in ("made", "baseline") if settings.get(name) is not None
    }
    ignore_index: int | None = settings.pop("ignore_index", None)
    if settings:
        raise TypeError(f"evaluate() has no setting {', '.join(settings)}")
    evaluation = Evaluation(
        suites=tuple(suites.split(",")) if isinstance(suites, str) else tuple(suites),
        data=None if plain is None else str(plain),
        published={name: str(folder) for name, folder in given.items()},
        branch=branch,
        ignore_index=ignore_index,
        **folders,
        **own,
    )
    results = evaluation.run(model, None if out is None else Path(out), device=device)
    assert results is not None, "a process of its own"
    return results


class _Run:
    """The parts of one evaluation."""

    def __init__(
        self, evaluation: Evaluation, subject: Subject, out: Path | None, world: World, teller: Teller
    ) -> None:
        self.evaluation, self.subject, self.out, self.world, self.teller = evaluation, subject, out, world, teller
        self.branches = self._branches()
        self.others: list[BadFile] = []
        self.runner = Runner(subject, evaluation.runner, world, Store(out))
        self.request = Request(
            subject=subject,
            data=evaluation.data,
            published=evaluation.published,
            made=evaluation.made,
            baseline=evaluation.baseline,
            seed=evaluation.runner.seed,
            workers=evaluation.runner.workers,
            splits=_splits(evaluation),
            **asdict(evaluation.attack),
        )

    def results(self) -> Results | None:
        jobs = self._jobs()
        self._check_baseline(jobs)
        self._look_for_others(jobs)
        rows = self._answer(jobs)
        if not self.world.leads:
            return None
        cells = {(job.cell.suite, job.cell.name): (job.data, job.preprocessing) for job in jobs}
        found = tuple(
            one
            for branch in self.branches
            for suite in self.evaluation.suites
            for one in found_in(find_suite(suite).measures(rows[branch], self.request), branch, cells)
        )
        bad = tuple(dict.fromkeys([*(file for job in jobs for file in job.loader.bad), *self.others]))
        settings = {**self.evaluation.flat(), "splits": self.request.splits, "device": self.world.device.type}
        # A report shows the cue conflicts that were answered; other images nobody looks at one by one.
        images = {
            f"{job.cell.suite}/{job.cell.name}": {"root": str(job.cell.images.root)}
            for job in jobs
            if job.cell.textures
        }
        results = Results(self.subject, settings, found, rows, bad, images)
        if self.out is not None:
            results.write(self.out)
        return results

    def _branches(self) -> tuple[str, ...]:
        asked, known = self.evaluation.branch, self.subject.branches
        if asked == ALL:
            return known
        if asked != MEAN and asked not in known:
            raise ValueError(
                f"--branch {asked}: {self.subject.name} has the branches {', '.join(known)}; or all, or mean"
            )
        return (asked,)

    def _jobs(self) -> list[Job]:
        """All jobs, branch after branch. Images that have to be made are by the first process; the others find them."""
        with self.world.leader_first("cells"):
            cells = [cell for name in self.evaluation.suites for cell in find_suite(name).cells(self.request)]
        return [self.runner.job(cell, branch, self.teller.check) for branch in self.branches for cell in cells]

    def _check_baseline(self, jobs: Sequence[Job]) -> None:
        """Raise ValueError where errors would be divided by those of other images; before anything is answered."""
        if self.request.baseline is None or "corruptions" not in self.evaluation.suites:
            return
        baseline = read_baseline(self.request.baseline)
        for job in jobs:
            if job.cell.suite in ("clean", "corruptions"):
                baseline.check(job.cell.suite, job.cell.name, job.data, job.preprocessing)

    def _look_for_others(self, jobs: Sequence[Job]) -> None:
        """Name the files in class folders that are of other kinds than images; ValueError with --strict."""
        listings = {job.cell.images.root: job.cell.images for job in jobs}
        self.others = [
            BadFile(name, f"a file of another kind, {Path(name).suffix or 'without an extension'}")
            for listing in listings.values()
            for name in other_files(listing)
        ]
        if self.others and self.evaluation.runner.strict:
            shown = ", ".join(file.name for file in self.others[:SHOWN])
            more = f" and {len(self.others) - SHOWN:,} more" if len(self.others) > SHOWN else ""
            raise ValueError(
                f"{counted(len(self.others), 'file')} of other kinds than images in the class folders "
                f"(remove them, or leave out --strict to skip them): {shown}{more}"
            )

    def _answer(self, jobs: Sequence[Job]) -> dict[str, dict[tuple[str, str], tuple[Row, ...]]]:
        kept = [self.runner.stored(job) for job in jobs]
        done = sum(len(job) for job, rows in zip(jobs, kept, strict=True) if rows is not None)
        self.teller.begin(done, sum(map(len, jobs)))
        answered: dict[str, dict[tuple[str, str], tuple[Row, ...]]] = {branch: {} for branch in self.branches}
        for job, rows in zip(jobs, kept, strict=True):
            if rows is None:
                rows = self.runner.rows(job, _Counted(self.teller, job, self.world.size))
            answered[job.branch][job.cell.suite, job.cell.name] = rows
        return answered


def _splits(evaluation: Evaluation) -> dict[str, str]:
    """`Request.splits` of the folders as they lie there now."""
    folders = {**({} if evaluation.data is None else {"": evaluation.data}), **evaluation.published}
    found = {suite: evaluated_split(folder) for suite, folder in folders.items()}
    return {suite: split for suite, split in found.items() if split}


class _Counted:
    """Counts the images of a job, of which this process sees its share, up to their number."""

    def __init__(self, teller: Teller, job: Job, processes: int) -> None:
        self.teller, self.left, self.processes = teller, len(job), processes
        self.note = "/".join(filter(None, (job.cell.suite, job.cell.name))) + f" by {job.branch}"

    def __call__(self, count: int) -> None:
        count = min(self.left, count * self.processes)
        self.left -= count
        self.teller.answered(count, self.note)
