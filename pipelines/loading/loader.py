"""`image_loader`: batches of an image folder, shards or `shapes`, the same from either engine."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .batch_plan import Annotate, Augment, AugmentBoth, Batch, BatchPlan, augmenter_name
from .engines import Interpolation, check_interpolation, engine_batches, pick_engine
from .listing import Listing, list_images
from .sampler import Draws, EvalDraws, Ints, TrainDraws, WholeDraws, epoch_order, step_slices
from .scan import BadFile, Scan, scan
from .stylized_copies import pair_copies

__all__ = ["Batch", "ImageLoader", "annotated_loader", "image_loader", "listing_loader"]


def image_loader(
    data: str | PathLike[str],
    split: str = "train",
    size: int | tuple[int, int] = 224,
    batch_size: int = 64,
    train: bool = True,
    engine: str = "auto",
    device: str | torch.device = "cpu",
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    *,
    crop: float = 0.875,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    order: Sequence[int] | None = None,
    strict: bool = False,
    flat: bool = False,
    progress: Callable[[int, int], None] | None = None,
    interpolation: Interpolation = "bilinear",
    second: bool = False,
    augment: Augment | None = None,
    augment_second: Augment | None = None,
    stylized: str | PathLike[str] | None = None,
) -> "ImageLoader":
    """Return a loader over the samples of `data` in `split`; every file is checked first, bad ones are left out.

    `size` is one side or (height, width) in pixels. `batch_size` counts the images of one step over all `world_size`
    processes; this process, number `rank`, gets its contiguous part. `train=True` shuffles, cuts a random window (share
    `scale` of the area, aspect in `ratio`), flips with probability `flip` and drops the last partial batch.
    `train=False` keeps the order of the files (or `order`, indices into the listing) and every image once, resized so
    that `size` is the share `crop` of the shorter side. `workers` are threads that decode; 0 is this thread for
    torchvision and one per CPU for DALI. `strict` refuses bad files, `flat` accepts a folder without class folders.
    `interpolation` is that of torchvision's resize with antialias; the engines agree to 1/255 (bicubic: 2/255), within
    4 pixels of the border to 10/255.

    For `train=True` alone: `second=True` adds `Batch.augmented`, the same files with a window and a flip of their own;
    `stylized` is a set that `debias build-stylized` made of `data`, and adds `Batch.stylized` and `Batch.textures`,
    copy number epoch mod copies with a window and a flip of its own. `augment` and `augment_second` are called with the
    images (B, 3, H, W) float32 in [0, 1], or the second ones, on `device`, their indices (B,) int64 on the CPU and the
    epoch, and return the images to use.

    Raises ValueError in one line that names the file or flag and the fix.
    """
    sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    _check(sides, batch_size, train, seed, rank, world_size, workers)
    check_interpolation(interpolation)
    _check_use(train, order, second=second, augment=augment, augment_second=augment_second, stylized=stylized)
    draws = TrainDraws(sides, seed, scale, ratio, flip) if train else EvalDraws(sides, crop)
    chosen = pick_engine(engine)
    found = scan(list_images(data, split, flat=flat), workers, strict=strict, progress=progress)
    copies = None if stylized is None else pair_copies(found, data, split, Path(stylized), workers, progress)
    plan = BatchPlan(
        source=found if copies is None else copies.source,
        draws=draws,
        device=torch.device(device),
        second=second,
        copies=copies,
        augment=augment,
        augment_second=augment_second,
    )
    return ImageLoader(
        found,
        plan,
        batch_size=batch_size,
        engine=chosen,
        seed=seed,
        rank=rank,
        world_size=world_size,
        workers=workers,
        interpolation=interpolation,
        order=order,
    )


def listing_loader(
    listing: Listing,
    size: int | tuple[int, int],
    batch_size: int,
    *,
    crop: float,
    interpolation: Interpolation,
    engine: str = "auto",
    device: str | torch.device = "cpu",
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> "ImageLoader":
    """Return what `image_loader` makes with `train=False`, over samples that were listed before."""
    sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    _check(sides, batch_size, False, 0, rank, world_size, workers)
    check_interpolation(interpolation)
    chosen, draws = pick_engine(engine), EvalDraws(sides, crop)
    found = scan(listing, workers, strict=strict, progress=progress)
    return ImageLoader(
        found,
        BatchPlan(source=found, draws=draws, device=torch.device(device)),
        batch_size=batch_size,
        engine=chosen,
        seed=0,
        rank=rank,
        world_size=world_size,
        workers=workers,
        interpolation=interpolation,
        order=None,
    )


def annotated_loader(
    listing: Listing,
    annotate: Callable[[Scan], Annotate],
    size: tuple[int, int],
    batch_size: int,
    *,
    train: bool,
    engine: str = "auto",
    device: str | torch.device = "cpu",
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    scale: tuple[float, float] = (0.25, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    interpolation: Interpolation = "bilinear",
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    augment: Augment | None = None,
    augment_both: AugmentBoth | None = None,
    truths: str = "",
) -> "ImageLoader":
    """Return what `image_loader` does for samples whose `Batch.labels` are boxes, masks or other `Annotations`.

    `annotate` gets the usable samples, and returns what makes the targets of a batch from its `Draws`: these say which
    window of the upright image was cut, to what it was resized and whether it was flipped, so that boxes and masks
    can follow. `size` is (height, width). `train=True` cuts a random window (share `scale` of the area, aspect in
    `ratio`); `train=False` shows the whole image, resized to `size` whatever its aspect. `augment_both` is called with
    images, targets, indices and epoch, after `augment`, and returns images and targets. `truths` is a digest of what
    `annotate` knows, without which `load_state_dict` goes on with other boxes or masks.
    """
    _check(size, batch_size, train, seed, rank, world_size, workers)
    check_interpolation(interpolation)
    _check_use(train, None, augment=augment, augment_both=augment_both)
    chosen, draws = pick_engine(engine), TrainDraws(size, seed, scale, ratio, flip) if train else WholeDraws(size)
    found = scan(listing, workers, strict=strict, progress=progress)
    plan = BatchPlan(
        source=found,
        draws=draws,
        device=torch.device(device),
        augment=augment,
        annotate=annotate(found),
        augment_both=augment_both,
        truths=truths,
    )
    return ImageLoader(
        found,
        plan,
        batch_size=batch_size,
        engine=chosen,
        seed=seed,
        rank=rank,
        world_size=world_size,
        workers=workers,
        interpolation=interpolation,
        order=None,
    )


class ImageLoader:
    """Batches of one split, made by `image_loader`.

    Each pass is one epoch; when it ends the epoch advances, `set_epoch` sets it. A pass left early starts again.
    `engine` is the one chosen, and `decoder` what really decoded the last batch: "dali cpu", "dali mixed" (on the GPU)
    or "pillow"; None before the first. `bad` are the files left out, `listing` is what `Batch.indices` count in.
    """

    def __init__(
        self,
        found: Scan,
        plan: BatchPlan,
        *,
        batch_size: int,
        engine: str,
        seed: int,
        rank: int,
        world_size: int,
        workers: int,
        interpolation: Interpolation,
        order: Sequence[int] | None,
    ):
        self._scan, self._plan = found, plan
        self.engine, self.interpolation, self.batch_size = engine, interpolation, batch_size
        self.seed, self.rank, self.world_size, self.workers = seed, rank, world_size, workers
        self.device, self.size, self.train = plan.device, plan.draws.size, isinstance(plan.draws, TrainDraws)
        self.decoder: str | None = None
        self._order = None if order is None else _checked_order(order, len(self.listing))
        # Names, labels and sizes, and the bytes: an image may be replaced by another of its size.
        self._digest = hashlib.sha256("\n".join((self.listing.digest, *found.digests)).encode()).hexdigest()
        self._truths = plan.truths
        self.epoch = 0
        self._done = 0  # global steps of this epoch that were handed out
        self._first = 0  # where the next pass begins: above 0 only after load_state_dict
        if self.train and self.steps == 0:
            raise ValueError(
                f"{self.listing.root} has {len(self.listing)} usable images, less than one batch; "
                f"lower --batch-size {batch_size}"
            )

    @property
    def listing(self) -> Listing:
        """The usable samples; `Batch.indices` count in it."""
        return self._scan.listing

    @property
    def bad(self) -> tuple[BadFile, ...]:
        """The files left out, with the reason."""
        return self._scan.bad

    @property
    def contents(self) -> str:
        """The sha256 of the usable images, by name, label and bytes, and of what is true of them."""
        return hashlib.sha256(f"{self._digest} {self._truths}".encode()).hexdigest()

    @property
    def digests(self) -> tuple[str, ...]:
        """The sha256 of each usable file's bytes."""
        return self._scan.digests

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.listing.classes

    @property
    def augmenter(self) -> str:
        """The name of `augment` or `augment_both`, "none" without one."""
        return augmenter_name(self._plan.augment or self._plan.augment_both)

    @property
    def second_augmenter(self) -> str:
        """The name of `augment_second`, "none" without one."""
        return augmenter_name(self._plan.augment_second)

    @property
    def steps(self) -> int:
        """Steps of a whole epoch over all processes."""
        count = len(self.listing) if self._order is None else len(self._order)
        return count // self.batch_size if self.train else -(-count // self.batch_size)

    def __len__(self) -> int:
        """Batches that a whole epoch gives this process."""
        return sum(1 for _ in self._slices(0))

    def with_order(self, order: Sequence[int]) -> "ImageLoader":
        """Return an evaluation loader over these indices of the listing, in this order; nothing is scanned again."""
        _check_use(self.train, order)
        other = copy.copy(self)
        other._order = _checked_order(order, len(self.listing))
        other.epoch = other._done = other._first = 0
        other.decoder = None
        return other

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; for the epoch just loaded by `load_state_dict` its position stays."""
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, got {epoch}")
        if epoch != self.epoch:
            self._first = self._done = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int | str]:
        """Return the position in plain types: after the batch last handed out, whatever is prefetched behind it."""
        return {
            "epoch": self.epoch,
            "batches": self._done,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "images": len(self.listing),
            "digest": self._digest,
            "truths": self._truths,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position; the next pass gives the rest of that epoch. The world size may differ.

        Raises ValueError where the seed, the batch size, the images or their truths are not those of the state.
        """
        mine = self.state_dict()
        for key, name in (("seed", "--seed"), ("batch_size", "--batch-size")):
            if state.get(key) != mine[key]:
                raise ValueError(
                    f"cannot resume: {name} was {state.get(key)}, now {mine[key]}; use what the run began with"
                )
        if state.get("digest") != mine["digest"]:
            counts = f"{state.get('images', 'others')} then, {mine['images']} now"
            raise ValueError(
                f"cannot resume: the images of --data have changed ({counts}); use what the run began with"
            )
        if state.get("truths", "") != self._truths:
            raise ValueError(
                "cannot resume: the boxes, masks or class names of --data have changed; use what the run began with"
            )
        self.epoch = int(state["epoch"])
        self._first = self._done = int(state["batches"])

    def __iter__(self) -> Iterator[Batch]:
        first, self._first = self._first, 0
        self._done = first
        return self._batches(self.epoch, first)

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        steps: list[int] = []  # of the plans an engine has taken, in order

        def plans() -> Iterator[Draws]:
            for step, indices in self._slices(first, epoch):
                steps.append(step)
                yield self._plan.draw(indices, epoch)

        most = -(-self.batch_size // self.world_size) * self._plan.blocks
        made = engine_batches(
            self.engine, self._plan.source, plans(), self.size, most, self.device, self.workers, self.interpolation
        )
        for draws, images, decoder in made:
            self._done, self.decoder = steps.pop(0) + 1, decoder
            yield self._plan.batch(draws, images, epoch)
        self.epoch, self._done = epoch + 1, 0

    def _slices(self, first: int, epoch: int = 0) -> Iterator[tuple[int, Ints]]:
        count = len(self.listing)
        order = np.arange(count, dtype=np.int64) if self._order is None else self._order
        if self.train:
            order = epoch_order(count, self.seed, epoch)
        return step_slices(order, self.batch_size, self.rank, self.world_size, first, drop_last=self.train)


def _check(
    size: tuple[int, int], batch_size: int, train: bool, seed: int, rank: int, world_size: int, workers: int
) -> None:
    if min(size) < 1:
        raise ValueError(f"--size must be 1 pixel or more, got {size}")
    if batch_size < 1:
        raise ValueError(f"--batch-size must be 1 or more, got {batch_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in [0, world_size), got {rank} of {world_size}")
    if train and batch_size % world_size:
        raise ValueError(
            f"--batch-size {batch_size} is one step over all {world_size} processes and must be a multiple of them"
        )
    if not 0 <= seed < 2**64:
        raise ValueError(f"--seed must lie in [0, 2**64), got {seed}")
    if workers < 0:
        raise ValueError(f"--workers must be 0 or more, got {workers}")


def _check_use(train: bool, order: Sequence[int] | None, **of_training: object) -> None:
    """Raise ValueError for what the one kind of loader alone can do."""
    if train and order is not None:
        raise ValueError("order is for train=False; training draws its own from the seed")
    asked = [name for name, value in of_training.items() if value not in (None, False)]
    if asked and not train:
        raise ValueError(f"{', '.join(asked)}: for train=True; evaluation reads the images as they are")
    if "augment_second" in asked and "second" not in asked:
        raise ValueError("augment_second changes the second images; give second=True too")


def _checked_order(order: Sequence[int], count: int) -> Ints:
    indices = np.asarray(order, dtype=np.int64).reshape(-1)
    if len(indices) and (indices.min() < 0 or indices.max() >= count):
        raise ValueError(f"order holds indices outside [0, {count}), the usable images of the listing")
    return indices
