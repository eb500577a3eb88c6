"""Cells to rows: a network's answers on the images of a cell, by one branch, alone or on torchrun's processes.

The network is in eval mode and in float32 unless asked otherwise (on CUDA without TF32), so no answer depends on the
images beside it. What an attack draws for an image depends on the seed and the image's name alone. Each process
answers its own share of the images, none twice: on any number of processes, and for any batch size, the rows are the
same, up to the rounding of the device's sums.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from debias.pipelines import Batch, ImageLoader
from debias.pipelines.draws import BatchDraws
from debias.pipelines.loading.listing import Listing
from debias.pipelines.loading.loader import listing_loader
from debias.pipelines.view import Logits
from debias.style_transfer import Images
from debias.train import branch_batchnorm
from debias.train.memory import keep_freed_memory
from debias.train.world import World

from .cell import Cell, Row
from .store import Store, key_of
from .subject import Subject

__all__ = ["MEAN", "Job", "Runner", "RunnerSettings", "Watched", "autocast", "exact_sums", "expected_decoder"]

MEAN = "mean"  # of the probabilities of all branches; no branch itself
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
TIE, ZERO_GRADIENT = 1, 2  # bits of a row's flags


@dataclass(frozen=True)
class RunnerSettings:
    """How cells are answered; ValueError for a number out of range."""

    batch_size: Annotated[int, "images that are answered together, over all processes; changes no answer"] = 64
    precision: Annotated[Literal["fp32", "bf16", "fp16"], "what the network computes in"] = "fp32"
    engine: Annotated[Literal["auto", "dali", "torchvision"], "what decodes and crops"] = "auto"
    workers: Annotated[int, "threads that decode; 0 leaves the choice to the engine"] = 0
    seed: Annotated[int, "what the attacks' random starts and made images are drawn from"] = 0
    strict: Annotated[bool, "refuse bad files instead of leaving them out"] = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be 1 or more, got {self.batch_size}")
        if self.workers < 0:
            raise ValueError(f"--workers must be 0 or more, got {self.workers}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed must lie in [0, 2**64), got {self.seed}")


@dataclass(frozen=True, eq=False)
class Job:
    """A cell for one branch, with the loader of its images and the key under which its rows are kept."""

    cell: Cell
    branch: str
    loader: ImageLoader
    places: tuple[int, ...]  # for each image of the loader its place in the cell, where bad files were left out
    key: str
    data: str  # sha256 over names, labels and bytes of the images that are answered
    preprocessing: dict[str, object]

    def __len__(self) -> int:
        return len(self.places)


class Watched:
    """`logits` for an attack, and by image whether a gradient that the attack took was zero in every pixel.

    An image whose gradient is zero stays where it is, and so does its gradient: one such step is the end of its attack.
    """

    def __init__(self, logits: Callable[[Images], Logits], count: int) -> None:
        self.logits = logits
        self.zero = torch.zeros(count, dtype=torch.bool)

    def __call__(self, images: Images) -> Logits:
        """Logits of `images`, whose gradient will be looked at."""
        if images.requires_grad:
            images.register_hook(self._note)  # type: ignore[no-untyped-call]
        return self.logits(images)

    def _note(self, gradient: Tensor) -> None:
        self.zero |= (gradient.nan_to_num() == 0).flatten(1).all(1).cpu()


class Runner:
    """Answers cells for `subject`. Every process of `world` asks for the same jobs in the same order."""

    def __init__(self, subject: Subject, settings: RunnerSettings, world: World, store: Store) -> None:
        self.subject, self.settings, self.world, self.store = subject, settings, world, store
        self._loaders: dict[tuple[object, ...], ImageLoader] = {}

    def job(self, cell: Cell, branch: str, checking: Callable[[int, int], None] | None = None) -> Job:
        """Check the images of `cell` and name the result. Raises ValueError where an image cannot be read."""
        _check_cell(cell)
        loader = self._loader(cell.images, self._crop(cell), checking)
        place = {name: index for index, name in enumerate(cell.images.names)}
        places = tuple(place[name] for name in loader.listing.names)
        spec = self.subject.spec
        preprocessing: dict[str, object] = {
            "size": spec.size,
            "crop": self._crop(cell),
            "interpolation": spec.interpolation,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "engine": loader.engine,
            "decoder": expected_decoder(loader.engine, self.world.device),
        }
        data = _digest(loader)
        facts = {
            **cell.identity(),
            "attack_labels": list(cell.attack_labels),
            "bytes": data,
            "weights": self.subject.weights,
            "model": self.subject.model,
            "classes": list(self.subject.classes),
            "branch": branch,
            "branches": list(self.subject.branches) if branch == MEAN else [],
            "precision": self.settings.precision,
            "device": self.world.device.type,
            "seed": self.settings.seed if cell.attack is not None else None,
            "preprocessing": preprocessing,
        }
        return Job(cell, branch, loader, places, key_of(facts), data, preprocessing)

    def stored(self, job: Job) -> tuple[Row, ...] | None:
        """The rows of a job that was finished before, on every process or on none; the first process has them."""
        rows = self.store.read(job.key, len(job)) if self.world.leads else None
        if not self.world.largest(int(rows is not None)):
            return None
        return rows or ()

    def rows(self, job: Job, progress: Callable[[int], None]) -> tuple[Row, ...]:
        """Answer a job and keep its rows; `progress` gets the images that the first process and its peers answered.

        Each process gets all rows. Raises ValueError where the network's answer is no number.
        """
        if self.world.device.type == "cpu":
            keep_freed_memory()
        indices, answers, confidences, flags = self._own_share(job, progress)
        shares = self.world.gather({"indices": indices, "answers": answers, "confidences": confidences, "flags": flags})
        found: list[Row | None] = [None] * len(job)
        for share in shares:
            columns = (share[name].tolist() for name in ("indices", "answers", "confidences", "flags"))
            for index, answer, confidence, bits in zip(*columns, strict=True):
                assert found[index] is None, "an image was answered twice"
                found[index] = _row(job, index, answer, confidence, bits)
        rows = tuple(row for row in found if row is not None)
        assert len(rows) == len(job), "an image was not answered"
        if self.world.leads:
            self.store.write(job.key, rows)
        return rows

    def _crop(self, cell: Cell) -> float:
        return self.subject.spec.crop if cell.crop is None else cell.crop

    def _loader(self, images: Listing, crop: float, checking: Callable[[int, int], None] | None) -> ImageLoader:
        key = (images.root, images.digest, crop)
        if key not in self._loaders:
            settings, spec = self.settings, self.subject.spec
            self._loaders[key] = listing_loader(
                images,
                spec.size,
                settings.batch_size,
                crop=crop,
                interpolation=spec.interpolation,
                engine=settings.engine,
                device=self.world.device,
                rank=self.world.rank,
                world_size=self.world.size,
                workers=settings.workers,
                strict=settings.strict,
                progress=checking,
            )
        return self._loaders[key]

    def _own_share(self, job: Job, progress: Callable[[int], None]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Indices, answers (N,) int64, confidences (N,) float64 and flags (N,) int64 of this process's images."""
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        with exact_sums(self.world.device), ExitStack() as reading:
            if job.branch != MEAN:
                reading.enter_context(branch_batchnorm.reading(self.subject.network, job.branch))
            for batch in job.loader:
                parts.append(self._answer(job, batch))
                progress(len(batch.indices))
        if not parts:
            empty = torch.zeros(0, dtype=torch.int64)
            return empty, empty, empty.double(), empty
        indices, answers, confidences, flags = (torch.cat(column) for column in zip(*parts, strict=True))
        return indices, answers, confidences, flags

    def _answer(self, job: Job, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        indices, images = batch.indices.cpu(), batch.images
        zero = torch.zeros(len(indices), dtype=torch.bool)
        if job.cell.attack is not None:
            images, zero = self._attacked(job, indices, images)
        with torch.no_grad():
            log_probabilities = job.cell.decide(self._logits(job.branch, images)).cpu().numpy()
        if np.isnan(log_probabilities).any():
            first = int(np.isnan(log_probabilities).any(axis=1).argmax())
            name = job.loader.listing.names[int(indices[first])]
            raise ValueError(
                f"{self.subject.name} answers {name} by no number (NaN); are its weights, and --precision, right?"
            )
        answers = log_probabilities.argmax(axis=1)  # the first of equal ones
        best = log_probabilities.max(axis=1)
        ties = (log_probabilities == best[:, None]).sum(axis=1) > 1
        flags = TIE * torch.from_numpy(ties).long() + ZERO_GRADIENT * zero.long()
        return indices, torch.from_numpy(answers), torch.from_numpy(np.exp(best)).double(), flags

    def _attacked(self, job: Job, indices: Tensor, images: Images) -> tuple[Images, Tensor]:
        attack, names = job.cell.attack, job.loader.listing.names
        assert attack is not None
        truth = torch.tensor([job.cell.attack_labels[job.places[index]] for index in indices.tolist()])
        # On the CPU, so that the start of an image is the same on every device.
        draws = [BatchDraws(self.settings.seed).generator(f"attack: {names[index]}") for index in indices.tolist()]
        watched = Watched(lambda x: self._logits(job.branch, x), len(indices))
        moved = attack(watched, images, truth.to(images.device), draws)
        return moved, watched.zero

    def _logits(self, branch: str, images: Images) -> Logits:
        """Logits (B, K) of a branch; of `mean` the logarithm of the branches' summed probability, in float64."""
        if branch != MEAN:
            with self._precision():
                made: Logits = self.subject.network(images)
            return made.to(torch.promote_types(made.dtype, torch.float32))
        parts = []
        for name in self.subject.branches:
            with branch_batchnorm.reading(self.subject.network, name), self._precision():
                parts.append(torch.log_softmax(self.subject.network(images).double(), dim=1))
        return torch.logsumexp(torch.stack(parts), dim=0)

    def _precision(self) -> Any:
        return autocast(self.settings.precision, self.world.device)


def autocast(precision: str, device: torch.device) -> Any:
    """A `with` block in which the network computes in `precision`."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _row(job: Job, index: int, answer: int, confidence: float, bits: int) -> Row:
    cell, place = job.cell, job.places[index]
    return Row(
        file=job.loader.listing.names[index],
        label=cell.labels[place],
        answer=cell.answers[answer],
        confidence=round(confidence, 6),
        texture=cell.textures[place] if cell.textures else "",
        flags=" ".join(word for bit, word in ((TIE, "tie"), (ZERO_GRADIENT, "zero-gradient")) if bits & bit),
    )


def _check_cell(cell: Cell) -> None:
    count = len(cell.images)
    lengths = {"labels": len(cell.labels), "textures": len(cell.textures) or count}
    lengths["attack_labels"] = len(cell.attack_labels) if cell.attack is not None else count
    for name, length in lengths.items():
        if length != count:
            raise ValueError(f"{cell.suite} {cell.name}: {length} {name} for {count} images")


def expected_decoder(engine: str, device: torch.device) -> str:
    """What `ImageLoader.decoder` will say once it has read a batch; a cell that is found done reads none."""
    if engine == "torchvision":
        return "pillow"
    return "dali mixed" if device.type == "cuda" else "dali cpu"


def _digest(loader: ImageLoader) -> str:
    """sha256 over names, labels and bytes of the images that a loader gives."""
    digest = hashlib.sha256()
    for name, label, content in zip(loader.listing.names, loader.listing.labels, loader.digests, strict=True):
        digest.update(f"{name}\0{loader.classes[label]}\0{content}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@contextmanager
def exact_sums(device: torch.device) -> Iterator[None]:
    """Within the `with`, float32 on CUDA is float32, and the same sum is always made in the same way."""
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    conv: Any = cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, conv.fp32_precision, cudnn.benchmark, cudnn.deterministic
    try:
        matmul.fp32_precision, conv.fp32_precision, cudnn.benchmark, cudnn.deterministic = "ieee", "ieee", False, True
        yield
    finally:
        matmul.fp32_precision, conv.fp32_precision, cudnn.benchmark, cudnn.deterministic = before
