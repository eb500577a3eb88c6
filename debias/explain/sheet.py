"""The sheet: a row for each image and each class to be made, a column for each network and branch, side by side.

In the row of an image a cell is its loss gradient, in the row of a class the image that was made for it. What the
networks read stands first: each image through their own preprocessing, each class image's seed. Networks that read
alike share that column, and stand behind it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from debias.pipelines.draws import BatchDraws
from debias.pipelines.loading.scan import Scan
from debias.style_transfer import Images
from debias.train.weights_file import InputSpec

from ..evaluation.subject import Subject
from .class_names import find_class, shown_class, some_classes
from .gradients import gradient_picture, loss_gradient, probabilities
from .pictures import BATCH, read_pictures
from .synthesis import ClassSeeds, Synthesis, grey_seeds, synthesize

__all__ = ["Column", "Rows", "branches_of", "check", "columns", "percent"]


@dataclass(frozen=True, eq=False)
class Rows:
    """What is explained. Classes go by names, which each network looks up among its own."""

    pictures: Scan
    labels: tuple[str, ...]  # the true class of each picture
    classes: tuple[str, ...] = ()  # to make an image of
    synthesis: Synthesis = field(default_factory=Synthesis)
    seed: int = 0
    examples: Mapping[str, Scan] = field(default_factory=dict)  # by class the images that its seed is like; else grey


@dataclass(frozen=True, eq=False)
class Column:
    """A column of the sheet: images (N, 3, H, W) float32 in [0, 1] on the CPU, and a text below each."""

    title: str
    images: Images
    captions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Read:
    """What networks of one preprocessing read."""

    images: Images  # (N, 3, size, size) of the pictures
    seeds: Images  # (M, 3, size, size) of the classes


def branches_of(subject: Subject, branch: str) -> tuple[str, ...]:
    """The branches of a network that `branch` asks for: one by its name, or `all`. ValueError for an unknown one."""
    if branch != "all" and branch not in subject.branches:
        known = ", ".join(subject.branches)
        raise ValueError(f"--branch {branch}: {subject.name} has {known}; take a branch that all models have, or all")
    return subject.branches if branch == "all" else (branch,)


def check(subjects: Sequence[Subject], branch: str, rows: Rows) -> None:
    """Raise ValueError, one line, for a network that lacks gradients, the branch, or a class that is asked for."""
    for subject in subjects:
        branches_of(subject, branch)
        if not subject.differentiable:
            raise ValueError(f"{subject.name} has no gradients; give the run or the weights that it was exported from")
        for name in dict.fromkeys(rows.labels):
            if find_class(name, subject.classes) is None:
                raise ValueError(
                    f"{subject.name} has no class {name!r} ({some_classes(subject.classes)}); give the true class of "
                    "all images by --label, or images in folders of their classes"
                )
        for name in rows.classes:
            if find_class(name, subject.classes) is None:
                raise ValueError(
                    f"--synthesize {name}: {subject.name} has no such class; it has {some_classes(subject.classes)}"
                )


def columns(
    subjects: Sequence[Subject],
    branch: str,
    rows: Rows,
    device: torch.device,
    done: Callable[[int], None] = lambda count: None,
) -> Iterator[Column]:
    """Make the columns in order; `done` is called with the number of cells that were just made.

    Raises what `check` does, and ValueError where a gradient is not finite.
    """
    check(subjects, branch, rows)
    specs = list(dict.fromkeys(map(_reading, subjects)))
    titles = _titles(subjects)
    for spec in specs:
        read = _read(rows, spec)
        how = f"read at {spec.said_size} px, {spec.crop:g} of it, {spec.interpolation}"
        title = "image" if len(specs) == 1 else how
        said = (*map(shown_class, rows.labels), *(f"seed of {shown_class(name)}" for name in rows.classes))
        yield Column(title, torch.cat([read.images, read.seeds]), said)
        for subject, own in zip(subjects, titles, strict=True):
            for name in branches_of(subject, branch) if _reading(subject) == spec else ():
                cells = list(_cells(subject, name, rows, read, device, done))
                yield Column(
                    f"{own}: {name}", torch.stack([image for image, _ in cells]), tuple(said for _, said in cells)
                )


def _reading(subject: Subject) -> InputSpec:
    """What of a network's spec decides how a file becomes an image: not mean and std, which are its first layer."""
    plain = InputSpec()
    return replace(subject.spec, mean=plain.mean, std=plain.std)


def _read(rows: Rows, spec: InputSpec) -> _Read:
    none = torch.empty(0, 3, *spec.sides)
    seeds = [_seed(rows, name, spec) for name in rows.classes]
    return _Read(torch.cat([none, *read_pictures(rows.pictures, spec)]), torch.cat([none, *seeds]))


def _seed(rows: Rows, name: str, spec: InputSpec) -> Images:
    """The seed of one class, (1, 3, H, W): the same for all networks of this spec, whatever else is made."""
    generator = BatchDraws(rows.seed).generator(f"explain: seed of {name}")
    grain = rows.synthesis.of_size(max(spec.sides)).grain
    assert grain is not None
    if name in rows.examples:
        return ClassSeeds.fit(read_pictures(rows.examples[name], spec), grain).draw(1, generator)
    return grey_seeds(1, spec.sides, grain, generator)


def _cells(
    subject: Subject, branch: str, rows: Rows, read: _Read, device: torch.device, done: Callable[[int], None]
) -> Iterator[tuple[Tensor, str]]:
    """Each cell of a column, (3, H, W), with its caption."""
    network = subject.network
    labels = torch.tensor([_number(name, subject) for name in rows.labels], dtype=torch.int64)
    for images, truth in zip(torch.split(read.images, BATCH), torch.split(labels, BATCH), strict=True):
        if len(images):  # no images at all are one empty part
            images, truth = images.to(device), truth.to(device)
            drawn = gradient_picture(loss_gradient(network, images, truth, branch)).cpu()
            said = probabilities(network, images, branch).cpu()
            yield from zip(
                drawn, (_answer(*row, subject) for row in zip(said, truth.tolist(), strict=True)), strict=True
            )
            done(len(images))
    for name, seed in zip(rows.classes, read.seeds.to(device), strict=True):
        label = _number(name, subject)
        made = synthesize(network, seed[None], label, branch, rows.synthesis)
        before, after = probabilities(network, torch.stack([seed, made[0]]), branch)[:, label].tolist()
        yield made[0].cpu(), f"{shown_class(name)} {percent(before)} to {percent(after)}"
        done(1)


def _answer(said: Tensor, truth: int, subject: Subject) -> str:
    """The likeliest class, "church 93 %", and below it, where it is another, the true one."""
    best, *others = (
        f"{shown_class(subject.classes[label])} {percent(float(said[label]))}"
        for label in dict.fromkeys((int(said.argmax()), truth))
    )
    return "\n".join([best, *(f"({other})" for other in others)])


def percent(share: float) -> str:
    """A probability for people, which is 0 % or 100 % only where it is exactly."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return "<1 %" if share < 0.01 else ">99 %" if share > 0.99 else f"{100 * share:.0f} %"


def _titles(subjects: Sequence[Subject]) -> list[str]:
    """The last part of each name, where these differ."""
    short = [Path(subject.name).name or subject.name for subject in subjects]
    return short if len(set(short)) == len(short) else [subject.name for subject in subjects]


def _number(name: str, subject: Subject) -> int:
    found = find_class(name, subject.classes)
    assert found is not None  # `check`
    return found
