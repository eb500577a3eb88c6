"""One evaluation of a detector or segmenter: the images and their truths, cells, answers, measures, pictures."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from debias.pipelines import ImageLoader
from debias.pipelines.contact_sheet import contact_sheet
from debias.pipelines.loading.listing import Listing
from debias.pipelines.loading.loader import annotated_loader, listing_loader
from debias.pipelines.loading.sampler import Draws, WholeDraws
from debias.pipelines.loading.scan import BadFile, Scan
from debias.train import branch_batchnorm
from debias.train.memory import keep_freed_memory
from debias.train.models import Normalised
from debias.train.nested import as_float
from debias.train.run_folder import read_settings
from debias.train.world import World

from ..results import found_in
from ..runner import MEAN, autocast, exact_sums, expected_decoder
from ..store import key_of
from ..subject import Subject
from .corrupted import corrupted_cells
from .drawing import enlarged, with_legend
from .results import DenseResults, protocols_of
from .rows import DenseRow, DenseStore, StoredRows
from .tasks import DenseTask, dense_task

if TYPE_CHECKING:
    from ..evaluator import Evaluation, Teller

__all__ = ["DenseRun"]

CLEAN = ("clean", "")
EXAMPLES = 4  # images that are drawn
DRAWN = ("gaussian_noise/3", "fog/3")  # of the corrupted ones


@dataclass(frozen=True, eq=False)
class _Job:
    """A cell for one branch: its images in the order of the source, and the key under which its rows are kept."""

    suite: str
    cell: str
    branch: str
    loader: ImageLoader
    key: str
    data: str  # sha256 over names and bytes of the images, and their truths
    preprocessing: dict[str, object]


class DenseRun:
    """The parts of one evaluation. Every process of `world` makes the same one."""

    def __init__(
        self, evaluation: "Evaluation", subject: Subject, out: Path | None, world: World, teller: "Teller"
    ) -> None:
        self.evaluation, self.subject, self.world, self.teller = evaluation, subject, world, teller
        self.task: DenseTask = dense_task(subject.task)
        self._check()
        self.branches = subject.branches if evaluation.branch == "all" else (evaluation.branch,)
        self.store = DenseStore(out)
        self.out = out
        self.size = subject.spec.sides
        data, settings = evaluation.data, evaluation.runner
        assert data is not None
        self.split = _split(self.task.splits(data), data)
        self.images: Any = self.task.images(
            data, self.split or "test", subject.classes, self._ignore_index(), settings.strict, settings.workers
        )
        self.passed_over = self.task.passed_over(self.images)
        if world.leads and self.passed_over:
            shown = ", ".join(f"{name} ({many:,})" for name, many in self.passed_over.items())
            teller.say(f"passed over, for {subject.name} does not know them: {shown}")
        self.source = self._whole(self.images.listing, settings.engine, self._annotate, progress=teller.check)
        place = {name: index for index, name in enumerate(self.images.listing.names)}
        self.places = tuple(place[name] for name in self.scan.listing.names)

    def results(self) -> DenseResults | None:
        """Answer and measure; the results on the first process alone."""
        if self.world.leads and self._trained_on():
            self.teller.say(f"{self.subject.name} was trained on these images: the numbers say nothing of others")
        jobs = [job for branch in self.branches for job in self._jobs(branch)]
        self._answer(jobs)
        if not self.world.leads:
            return None
        rows = {
            branch: StoredRows(self.store, {(job.suite, job.cell): job.key for job in jobs if job.branch == branch})
            for branch in self.branches
        }
        protocols = protocols_of(self.subject, self.split, self.evaluation.runner.seed)
        cells = {(job.suite, job.cell): (job.data, job.preprocessing) for job in jobs}
        found = tuple(
            one
            for branch in self.branches
            for one in found_in(
                self.task.measures(rows[branch], self.subject.classes, self.evaluation.suites, protocols),
                branch,
                cells,
            )
        )
        boxes = [BadFile(name, reason) for name, reason in self.task.left_out(self.images).items()]
        results = DenseResults(
            subject=self.subject,
            settings={
                **self.evaluation.flat(),
                "splits": {"": self.split} if self.split else {},
                "device": self.world.device.type,
            },
            found=found,
            rows={},
            bad=(*self.images.bad, *self.source.bad, *boxes),
            dense_rows=rows,
            cells={f"{job.branch} {job.suite}/{job.cell}": self.store.name(job.key) for job in jobs},
            drawn={branch: self._picture([job for job in jobs if job.branch == branch]) for branch in self.branches},
            legend=self.task.legend(self.subject.classes),
            passed_over=self.passed_over,
        )
        if self.out is not None:
            results.write(self.out)
        return results

    # What is asked

    def _check(self) -> None:
        """Raise ValueError for what this task has not."""
        asked, task, has = self.evaluation, self.subject.task, self.task.suites
        for suite in asked.suites:
            if suite not in has:
                raise ValueError(f"--suite {suite}: not for {task}, which has {', '.join(has)}")
        if asked.data is None:
            raise ValueError(f"--suite {asked.suites[0]} needs images and what is true of them: give --data")
        for suite, folder in asked.published.items():
            raise ValueError(f"--data {suite}={folder}: {task} reads plain --data alone, which the others are made of")
        if asked.baseline is not None:
            raise ValueError(f"--baseline {asked.baseline}: for classification; leave it out")
        if asked.branch == MEAN:
            raise ValueError(f"--branch {MEAN}: for classification; take all, or {', '.join(self.subject.branches)}")
        if asked.branch != "all" and asked.branch not in self.subject.branches:
            raise ValueError(
                f"--branch {asked.branch}: {self.subject.name} has the branches "
                f"{', '.join(self.subject.branches)}; or all"
            )

    def _ignore_index(self) -> int | None:
        """What is asked for, else what the run was trained with."""
        if self.evaluation.ignore_index is not None:
            return self.evaluation.ignore_index
        try:
            found = read_settings(Path(self.subject.name)).get("ignore_index")
        except (ValueError, OSError):  # no run, but a file of weights
            return None
        return None if found is None else int(found)

    def _trained_on(self) -> bool:
        """Whether the run was trained on these images, by names and sizes; False where nothing is known."""
        try:
            trained = str(read_settings(Path(self.subject.name))["data"])
            threads = self.evaluation.runner.workers
            images = self.task.images(trained, "train", self.subject.classes, self._ignore_index(), False, threads)
        except (ValueError, OSError, KeyError):
            return False
        return bool(images.listing.digest == self.images.listing.digest)

    # Images

    def _whole(
        self,
        listing: Listing,
        engine: str,
        annotate: Callable[[Scan], Callable[[Draws], Any]],
        *,
        progress: Callable[[int, int], None] | None = None,
        alone: bool = False,
    ) -> ImageLoader:
        """Whole images at the network's size with their truths; this process's share of them, or all."""
        settings = self.evaluation.runner
        return annotated_loader(
            listing,
            annotate,
            self.size,
            settings.batch_size,
            train=False,
            engine=engine,
            device=self.world.device,
            rank=0 if alone else self.world.rank,
            world_size=1 if alone else self.world.size,
            workers=settings.workers,
            interpolation=self.subject.spec.interpolation,
            strict=settings.strict,
            progress=progress,
        )

    def _made(self, listing: Listing, *, alone: bool = False) -> ImageLoader:
        """Corrupted images, which have the network's size."""
        settings = self.evaluation.runner
        loader = listing_loader(
            listing,
            self.size,
            settings.batch_size,
            crop=1.0,
            interpolation=self.subject.spec.interpolation,
            engine=settings.engine,
            device=self.world.device,
            rank=0 if alone else self.world.rank,
            world_size=1 if alone else self.world.size,
            workers=settings.workers,
        )
        if loader.bad:
            raise ValueError(
                f"{loader.listing.root}: {loader.bad[0].name} is damaged ({loader.bad[0].reason}); "
                "remove that folder and run the same command again"
            )
        return loader

    def _annotate(self, found: Scan) -> Callable[[Draws], Any]:
        """Keep what makes the truths of the usable images, for the corrupted ones too."""
        annotated: Callable[[Draws], Any] = self.images.annotate(found)
        self.scan, self.annotated = found, annotated
        return annotated

    def _targets(self, indices: Tensor) -> Any:
        """The truths of images of the source, at the network's size."""
        numbers = indices.numpy().astype(np.int64)
        return self.annotated(WholeDraws(self.size)(numbers, self.scan.shapes[numbers], 0))

    # Cells

    def _jobs(self, branch: str) -> list[_Job]:
        jobs = [self._job(*CLEAN, branch, self.source, "the whole image, whatever its aspect")]
        suite = self.task.suites[-1]
        if suite in self.evaluation.suites:
            with self.world.leader_first(f"corrupted cells of {branch}"):
                made = corrupted_cells(
                    self._whole(self.images.listing, "torchvision", self.images.annotate, alone=True),
                    suite,
                    self.evaluation.made,
                    self.evaluation.runner.seed,
                )
            jobs += [
                self._job(suite, f"{name}/{severity}", branch, self._made(listing), "as stored")
                for (name, severity), listing in made.items()
            ]
        return jobs

    def _job(self, suite: str, cell: str, branch: str, loader: ImageLoader, geometry: str) -> _Job:
        spec = self.subject.spec
        preprocessing: dict[str, object] = {
            "size": list(self.size),
            "geometry": geometry,
            "interpolation": spec.interpolation,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "engine": loader.engine,
            "decoder": expected_decoder(loader.engine, self.world.device),
        }
        truths = self.images.digest
        data = key_of({"names": list(loader.listing.names), "bytes": list(loader.digests), "truths": truths})
        facts = {
            "task": self.subject.task,
            "data": data,
            "weights": self.subject.weights,
            "model": self.subject.model,
            "classes": list(self.subject.classes),
            "branch": branch,
            "precision": self.evaluation.runner.precision,
            "device": self.world.device.type,
            "preprocessing": preprocessing,
        }
        return _Job(suite, cell, branch, loader, key_of(facts), data, preprocessing)

    def _answer(self, jobs: Sequence[_Job]) -> None:
        """Answer what was not answered before: the store of the first process has all rows then."""
        count = len(self.places)
        kept = [self._is_stored(job) for job in jobs]
        self.teller.begin(count * sum(kept), count * len(jobs))
        if self.world.device.type == "cpu":
            keep_freed_memory()
        for job, done in zip(jobs, kept, strict=True):
            if not done:
                self._answer_job(job)

    def _is_stored(self, job: _Job) -> bool:
        """Whether a job was finished before, which every process has to know."""
        rows = self.store.read(job.key, len(self.places)) if self.world.leads else None
        return bool(self.world.largest(int(rows is not None)))

    def _answer_job(self, job: _Job) -> None:
        own: list[tuple[int, Any, Any]] = []
        left = len(self.places)
        note = f"{job.suite}/{job.cell}".rstrip("/") + f" by {job.branch}"
        with exact_sums(self.world.device), branch_batchnorm.reading(self.network, job.branch):
            for batch in job.loader:
                indices = batch.indices.cpu()
                targets = batch.labels if job.loader is self.source else self._targets(indices)
                rows = self.task.rows(
                    self.network,
                    self._outputs(batch.images),
                    self.images,
                    [self.places[index] for index in indices.tolist()],
                    targets,
                )
                own += [(index, row.truths, row.found) for index, row in zip(indices.tolist(), rows, strict=True)]
                count = min(left, len(rows) * self.world.size)
                left -= count
                self.teller.answered(count, note)
        found = {index: each for share in self.world.gather(own) for index, *each in share}
        assert sorted(found) == list(range(len(self.places))), "each image is answered once"
        made = tuple(DenseRow(self.scan.listing.names[index], *found[index]) for index in range(len(self.places)))
        if self.world.leads:
            self.store.write(job.key, made)

    @property
    def network(self) -> Normalised:
        """The subject's."""
        network = self.subject.network
        assert isinstance(network, Normalised)
        return network

    @torch.no_grad()
    def _outputs(self, images: Tensor) -> Any:
        with autocast(self.evaluation.runner.precision, self.world.device):
            made = self.network(images)
        return as_float(made)

    # Pictures

    def _picture(self, jobs: Sequence[_Job]) -> bytes:
        """Images in rows: what is there, what is found, and what is found of them corrupted."""
        count = len(self.places)
        chosen = sorted({(2 * number + 1) * count // (2 * EXAMPLES) for number in range(EXAMPLES)})
        clean = self._whole(
            self.scan.listing.select(chosen), self.evaluation.runner.engine, self.images.annotate, alone=True
        )
        columns: dict[str, Tensor] = {}
        for job in jobs:
            if job.cell and job.cell not in DRAWN:
                continue
            loader = self._made(job.loader.listing.select(chosen), alone=True) if job.cell else clean
            columns |= self._columns(job, loader)
        file = io.BytesIO()
        captions = {next(iter(columns)): [self.scan.listing.names[index] for index in chosen]}
        with_legend(contact_sheet(columns, captions), self.subject.classes).save(file, "PNG")
        return file.getvalue()

    def _columns(self, job: _Job, loader: ImageLoader) -> dict[str, Tensor]:
        size, classes = self.size, self.subject.classes
        there: list[Tensor] = []
        found: list[Tensor] = []
        with exact_sums(self.world.device), branch_batchnorm.reading(self.network, job.branch):
            for batch in loader:
                pictures = enlarged(batch.images)
                if not job.cell:
                    there.append(self.task.drawn_truths(pictures, batch.labels, size, classes))
                found.append(self.task.drawn(pictures, self.network, self._outputs(batch.images), size, classes))
        columns = {"what is there": torch.cat(there)} if there else {}
        return columns | {f"found, {job.cell.replace('/', ' ').replace('_', ' ') or 'clean'}": torch.cat(found)}


def _split(splits: Sequence[str], data: str) -> str:
    """Which split is evaluated: test, else val; empty for data without splits, which are used whole."""
    chosen = next((name for name in ("test", "val") if name in splits), "")
    if splits and not chosen:
        raise ValueError(f"--data {data} has the split train alone, which is trained on; add a split test")
    return chosen
