"""One training from settings: data, network, objective, loop, and the folder it leaves. The command is `train`."""

import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from torch import nn

from debias.pipelines import ImageLoader, image_loader
from debias.pipelines.loading.listing import list_images, split_names
from debias.pipelines.photometric import PHOTOMETRIC, Augmenter, Photometric
from debias.style_transfer import Stylizer
from debias.style_transfer.files import write_atomically
from debias.train import branch_batchnorm
from debias.train.checkpoint import Checkpoints
from debias.train.loop import Fitted, LoopSettings, Records, Watcher, fit
from debias.train.models import ModelSettings, Normalised, create, initialise
from debias.train.objectives import OBJECTIVES, Objective, Part, Variant, objective, settings_of
from debias.train.optimization import Optimization, lr_stages
from debias.train.records import Line, MetricsLog
from debias.train.run_folder import RunFolder
from debias.train.task import Classification
from debias.train.training import StepSettings, add_branches
from debias.train.weights_file import Card, save_model
from debias.train.world import World, join

from . import __version__
from .progress import PLAIN_SECONDS
from .terminal import say_skipped

__all__ = ["DataSettings", "ObjectiveSettings", "Quiet", "Teller", "TrainSettings", "train"]

SECOND = Photometric(policy="autoaugment")  # what the branch autoaugment reads
MAY_CHANGE = ("workers", "save_every", "log_every", "strict")  # none of these moves a weight


@dataclass(frozen=True)
class DataSettings:
    """What is trained on, and how it is read."""

    data: Annotated[str, "image folder, webdataset shards, a set of build-stylized, or the word shapes"]
    val: Annotated[str | None, "validation data; a folder val within or beside the training data when left out"] = None
    stylized_data: Annotated[str | None, "set of build-stylized made of --data, in place of stylising"] = None
    batch_size: Annotated[int, "images of a step over all processes"] = 64
    min_crop: Annotated[float, "least share of an image's area that a training crop has"] = 0.08
    flip: Annotated[float, "probability of mirroring a training image"] = 0.5
    engine: Annotated[Literal["auto", "dali", "torchvision"], "what decodes and crops"] = "auto"
    workers: Annotated[int, "threads that decode; 0 leaves the choice to the engine"] = 0
    strict: Annotated[bool, "refuse bad files instead of leaving them out"] = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be 1 or more, got {self.batch_size}")
        if not 0 < self.min_crop <= 1:
            raise ValueError(f"--min-crop must lie in (0, 1], got {self.min_crop}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"--flip must lie in [0, 1], got {self.flip}")
        if self.workers < 0:
            raise ValueError(f"--workers must be 0 or more, got {self.workers}")

    @property
    def validation(self) -> str | None:
        """What is validated on: `val`, or the split val of `data`, or the folder val beside a folder train."""
        beside = Path(self.data).with_name("val") if Path(self.data).name == "train" else None
        if self.val is not None or "val" in split_names(self.data):
            return self.val or self.data
        return str(beside) if beside is not None and beside.is_dir() else None


@dataclass(frozen=True)
class ObjectiveSettings:
    """What is learned. A field that is None is left to the variant, or to the method's own default.

    Raises ValueError, one line with the flag, for an objective, a setting or a value that cannot be.
    """

    objective: Annotated[str, f"what is learned: {', '.join(OBJECTIVES)}, or a sum as advprop+debiased"] = "vanilla"
    variant: Annotated[Variant, "where papers and their public code differ"] = "paper"
    loss: Annotated[Literal["mean", "sum"], "weighted mean of the views' losses, or their weighted sum"] = "mean"
    branches: Annotated[Literal["separate", "shared"], "a BatchNorm for each kind of image, or main for all"] = (
        "separate"
    )
    label_smoothing: Annotated[float, "share of each label that is spread over all classes"] = 0.0
    mixup: Annotated[float, "alpha of MixUp on the clean images; 0 leaves it out"] = 0.0
    cutmix: Annotated[float, "alpha of CutMix on the clean images; 0 leaves it out"] = 0.0
    stylizer: Annotated[str, "what stylises: compact, a file of fit-stylizer, or a folder of AdaIN's files"] = "compact"
    alpha: Annotated[float | None, "strength of the style, 0 to 1"] = None
    shape_weight: Annotated[float | None, "share of the shape's class in a cue conflict's label"] = None
    stylized_weight: Annotated[float | None, "weight of the stylised view's loss"] = None
    size_schedule: Annotated[Literal["full", "authors"] | None, "size of stylised images: full, or the authors'"] = None
    smallest_size: Annotated[int | None, "least side in pixels in the authors' size schedule"] = None
    attack_eps: Annotated[str | None, "radius of the attack, 4/255 say"] = None
    attack_steps: Annotated[int | None, "steps of the attack"] = None
    attack_step_size: Annotated[str | None, "step size of the attack, 1/255 say"] = None
    attack_norm: Annotated[Literal["linf", "l2"] | None, "ball of the attack"] = None
    attack_random_start: Annotated[float | None, "probability that an attack begins at a random point"] = None
    attack_targeted: Annotated[bool | None, "attack towards a random class"] = None
    adversarial_weight: Annotated[float | None, "weight of the adversarial view's loss"] = None

    def __post_init__(self) -> None:
        try:
            settings_of(self.objective)
        except ValueError as error:
            raise ValueError(f"--objective {self.objective}: {error}") from error

    def make(self, **others: Any) -> Objective:
        """The objective, with settings that no flag has as `others`."""
        known = settings_of(self.objective)
        values = {name: value for name, value in asdict(self).items() if value is not None}
        given = {name: value for name, value in values.items() if name not in ("objective", "variant", "stylizer")}
        for name in given:
            if name not in known:
                raise ValueError(f"{_flag(name)}: {self.objective} has no such setting; leave it out")
        try:
            return objective(self.objective, variant=self.variant, **given, **others)
        except ValueError as error:
            name, _, rule = str(error).partition(" ")
            raise ValueError(
                f"{_flag(name)} {rule}" if name in values else f"--objective {self.objective}: {error}"
            ) from error

    @property
    def uses_stylizer(self) -> bool:
        """Whether a part of the objective makes stylised views."""
        return "stylizer" in settings_of(self.objective)


@dataclass(frozen=True)
class TrainSettings:
    """All settings of a run, each group beside the code that reads it.

    Raises ValueError, one line with the flag, for settings that do not go together.
    """

    data: DataSettings
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    photometric: Photometric = field(default_factory=Photometric)
    optimization: Optimization = field(default_factory=Optimization)
    step: StepSettings = field(default_factory=StepSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    device: str = "cpu"

    def __post_init__(self) -> None:
        batch, cut = self.data.batch_size, self.step.batches * self.step.replicas
        if batch % cut:
            flags = f"--accumulate {self.step.accumulate} times --replicas {self.step.replicas}"
            raise ValueError(f"--batch-size {batch} is not a multiple of {flags}; take {batch - batch % cut or cut}")
        for part in self.make_objective().parts:
            least = math.ceil(2 / part.share) if part.share else 1
            if batch // cut < least:
                raise ValueError(
                    f"--batch-size {batch}: {self.objective.objective} takes {part.share:.0%} of each {batch // cut} "
                    f"images for itself, which is not two; take {least * cut} or more"
                )
        if self.data.stylized_data is not None and not self.objective.uses_stylizer:
            raise ValueError(f"--stylized-data: {self.objective.objective} has no stylised view; leave it out")

    def make_objective(self, stylizer: Stylizer | None = None) -> Objective:
        """The objective; one that makes stylised views trains with `stylizer`."""
        stages = lr_stages(self.optimization, self.loop.epochs)  # for each objective, since it checks the schedule too
        if not self.objective.uses_stylizer:
            return self.objective.make()
        return self.objective.make(stylizer=stylizer, lr_stages=stages)

    def flat(self) -> dict[str, Any]:
        """Every setting by its flag's name, as it will be used: names are distinct over the groups.

        None is what the objective has not, what its parts have each their own of, or what the network brings.
        """
        flat: dict[str, Any] = {}
        for group in fields(self):
            value = getattr(self, group.name)
            flat |= {group.name: value} if isinstance(value, str) else asdict(value)
        parts = self.make_objective().parts
        used = {name: _in_use(parts, name) for name in asdict(self.objective) if flat[name] is None}
        return flat | used | {"val": self.data.validation}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _in_use(parts: Sequence[Part], name: str) -> Any:
    """The value of a setting in the parts that have it; None where none has, or they have different ones."""
    owners = [(part, name) for part in parts]
    if name.startswith("attack_"):
        owners = [(part.attack, name.removeprefix("attack_")) for part in parts if hasattr(part, "attack")]
    values = {getattr(owner, field) for owner, field in owners if hasattr(owner, field)}
    return values.pop() if len(values) == 1 else None


class Teller(Watcher, Protocol):
    """A watcher that can also say something."""

    def say(self, text: str) -> None:
        """A line of news."""


class Quiet:
    """A teller that says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, done: int, total: int) -> None:
        """Nothing."""

    def step(self, done: int, total: int, note: str) -> None:
        """Nothing."""

    def lines(self, lines: list[Line]) -> None:
        """Nothing."""

    def epoch(self, done: int, total: int) -> None:
        """Nothing."""


def train(settings: TrainSettings, out: Path, teller: Teller, *, resume: bool = True) -> Fitted | None:
    """Train into the folder `out`, or go on there; None where that run is complete already.

    A run that has not got as far as a checkpoint is begun anew, also with other settings. Raises ValueError, one line
    that names the flag or file, for what cannot be trained; a run that `out` holds is as it was then.
    """
    with join(settings.device) as world, RunFolder(out, MAY_CHANGE) as folder:
        resume = resume and (folder.weights.exists() or any(folder.checkpoints.glob("step-*.pt")))
        # A new run is built before an old one makes room for it: a mistake in its settings costs nothing.
        run = None if resume else _Run(settings, folder, world, teller)
        complete = world.leads and folder.begin(settings.flat(), resume) == "complete"
        if world.largest(int(complete)):
            return None
        fitted = (run or _Run(settings, folder, world, teller)).fit()
        if world.leads:
            folder.finish()
        world.wait()
    return fitted


class _Run:
    """The parts of a run, built from its settings."""

    def __init__(self, settings: TrainSettings, folder: RunFolder, world: World, teller: Teller) -> None:
        self.settings, self.folder, self.world, self.teller = settings, folder, world, teller
        self.classes = list_images(settings.data.data, "train").classes
        self.objective = self._objective()
        self.model = self._model()
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.recorded = False
        self.loader = self._loader()
        self.validation = self._validation()
        self.card = self._card()
        settings.loop.validated(self.model)  # names branches that are there

    def fit(self) -> Fitted:
        """The whole training, and its weights in the folder."""
        settings, leads = self.settings, self.world.leads
        if leads:
            self._introduce()
        with MetricsLog(self.folder.metrics, self.folder.tensorboard) as metrics:
            records = Records(self.checkpoints, metrics, self._save_best)
            fitted = fit(
                self.model,
                self.loader,
                self.objective,
                task=Classification(len(self.classes)),
                validation=self.validation,
                settings=settings.loop,
                optimization=settings.optimization,
                step=settings.step,
                world=self.world,
                records=records,
                watcher=self if leads else None,
            )
        if leads:  # and only then is the run complete
            if fitted.best is None:  # without a validation of main the best weights are the last
                self._save_best(self.model)
            save_model(self.folder.weights, self.model.network, self.card)
        return fitted

    def begin(self, done: int, total: int) -> None:
        """Pass it on, and say where it goes on."""
        for name, reason in self.checkpoints.passed_over.items():
            self.teller.say(f"checkpoint {name} is passed over: {reason}")
        if done:
            self.teller.say(f"going on at step {done} of {total}")
        self.teller.begin(done, total)

    def step(self, done: int, total: int, note: str) -> None:
        """Pass it on; what decoded is known with the first batch."""
        if not self.recorded:
            self._record()
        self.teller.step(done, total, note)

    def lines(self, lines: list[Line]) -> None:
        """Pass them on."""
        self.teller.lines(lines)

    def epoch(self, done: int, total: int) -> None:
        """Pass it on."""
        self.teller.epoch(done, total)

    def _introduce(self) -> None:
        images, size = len(self.loader.listing), self.model.spec.size
        branches = ", ".join(branch_batchnorm.branches(self.model))
        say_skipped(self.loader.bad)
        self.teller.say(
            f"{self.objective.name} on {self.settings.model.model}, BatchNorm branches: {branches}; "
            f"{images:,} images of {len(self.classes)} classes at {size} x {size} pixels"
        )
        if self.validation is None:
            self.teller.say("no validation data: give --val, or a folder val beside the training data")
        else:
            say_skipped(self.validation.bad)
            self.teller.say(f"validated on {len(self.validation.listing):,} images of {self.validation.listing.root}")

    def _record(self) -> None:
        """Say and write down what does the work, of which settings.json knows only what was asked for."""
        import torchvision

        loader = self.loader
        record = {
            "engine": loader.engine,
            "decoder": loader.decoder,
            "augmenter": loader.augmenter,
            "second_augmenter": loader.second_augmenter,
            "device": device_name(self.world.device),
            "processes": self.world.size,
            "threads": torch.get_num_threads(),
            "images": len(loader.listing),
            "bad_files": len(loader.bad),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "debias": __version__,
        }
        write_atomically(self.folder.record, (json.dumps(record, indent=2) + "\n").encode())
        self.teller.say(f"decoded by {loader.decoder}, augmented by {loader.augmenter}, on {record['device']}")
        self.recorded = True

    def _objective(self) -> Objective:
        chosen, stylizer = self.settings.objective, None
        if chosen.uses_stylizer and self.settings.data.stylized_data is None:
            stylizer = Stylizer.load(chosen.stylizer, device=self.world.device)
        return self.settings.make_objective(stylizer)

    def _model(self) -> Normalised:
        torch.manual_seed(self.settings.step.seed)
        model = create(self.settings.model, len(self.classes))
        add_branches(model, self.objective)
        if self.settings.model.init:
            new = initialise(model, self.settings.model.init)
            if new and self.world.leads:
                self.teller.say(f"--init {self.settings.model.init}: {', '.join(new)} not loaded, drawn anew")
        return model.to(self.world.device)

    def _loader(self) -> ImageLoader:
        """The training images, as the network and the objective want them."""
        settings, data, world = self.settings, self.settings.data, self.world
        seed, asks = settings.step.seed, self.objective.asks_augmented
        return image_loader(
            data.data,
            "train",
            self.model.spec.size,
            data.batch_size // settings.step.batches,
            engine=data.engine,
            device=world.device,
            seed=seed,
            rank=world.rank,
            world_size=world.size,
            workers=data.workers,
            scale=(data.min_crop, 1.0),
            flip=data.flip,
            interpolation=self.model.spec.interpolation,
            strict=data.strict,
            progress=_Checking(self.teller) if world.leads else None,
            second=asks,
            augment=Augmenter(settings.photometric, seed, world.device) if settings.photometric.active else None,
            augment_second=Augmenter(SECOND, seed, world.device, stream=PHOTOMETRIC + 1) if asks else None,
            stylized=data.stylized_data,
        )

    def _validation(self) -> ImageLoader | None:
        data, spec, world = self.settings.data, self.model.spec, self.world
        source = data.validation
        if source is None:
            return None
        loader = image_loader(
            source,
            "val",
            spec.size,
            data.batch_size,
            train=False,
            engine=data.engine,
            device=world.device,
            rank=world.rank,
            world_size=world.size,
            workers=data.workers,
            crop=spec.crop,
            interpolation=spec.interpolation,
            strict=data.strict,
            progress=_Checking(self.teller) if world.leads else None,
        )
        if loader.classes != self.classes:
            other = min(set(loader.classes) ^ set(self.classes))
            raise ValueError(
                f"--val {source}: its classes are not those of --data {data.data}, "
                f"{other!r} is in one of them alone; give validation data of the same classes"
            )
        return loader

    def _card(self) -> Card:
        return Card(
            model=self.settings.model.model,
            classes=self.classes,
            spec=self.model.spec,
            objective=self.objective.name,
            branches=self.objective.norm_branches,
        )

    def _save_best(self, model: nn.Module) -> None:
        save_model(self.folder.best, self.model.network, self.card)


class _Checking:
    """Says, every few seconds, how far the check of all files is: the first one of a large set takes minutes."""

    def __init__(self, teller: Teller) -> None:
        self._teller, self._said = teller, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self._teller.say(f"checked {done:,} of {total:,} files")


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
