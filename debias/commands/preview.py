"""`debias preview`: a contact sheet of cue conflicts with their labels, before any training."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import click
import torch

from debias.pipelines import image_loader
from debias.pipelines.contact_sheet import save_sheet
from debias.pipelines.cue_conflict import Alpha, ShapeWeight, cue_conflict, derangement
from debias.pipelines.labels import soft_targets
from debias.pipelines.view import Targets
from debias.style_transfer import Stylizer

from ..options import dry_run_option, options, picked, print_settings
from ..terminal import say_skipped
from ..wording import short_name


@dataclass(frozen=True)
class PreviewSettings:
    """What a contact sheet shows."""

    rows: Annotated[int, "samples on the sheet"] = 8
    size: Annotated[int, "pixels a side of each image"] = 224
    alpha: Alpha = 0.5
    shape_weight: ShapeWeight = 0.8
    stylizer: Annotated[str, "compact, a file of fit-stylizer, or a folder with the published AdaIN files"] = "compact"
    split: Annotated[str, "split folder of DATA, where it has any"] = "train"
    seed: Annotated[int, "of the choice of images and partners"] = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "shape_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name.replace('_', '-')} must lie in [0, 1], got {getattr(self, name)}")
        if self.rows < 2:
            raise ValueError(f"--rows must be 2 or more, since images are each other's textures, got {self.rows}")


@click.command()
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), default="sheet.png", show_default=True, help="PNG to write.")
@options(PreviewSettings)
@dry_run_option
def command(data: str, out: Path, dry_run: bool, **fields: Any) -> None:
    """Draw a contact sheet of cue-conflict images with their labels.

    Each row shows an image, the image whose texture it takes, and the cue conflict with its soft label.
    """
    settings = picked(PreviewSettings, fields)
    if dry_run:
        return print_settings({"data": data, "out": str(out)} | asdict(settings))
    draw_sheet(data, out, settings)
    click.echo(out)
    return None


def draw_sheet(data: str, out: Path, settings: PreviewSettings) -> None:
    """Draw the sheet of `data` and write it to `out`."""
    generator = torch.Generator().manual_seed(settings.seed)
    loader = image_loader(data, settings.split, settings.size, settings.rows, train=False, crop=1.0)
    say_skipped(loader.bad)
    if len(loader.listing) < 2:
        raise ValueError(f"{data} has one usable image; a cue conflict needs two")
    chosen = torch.randperm(len(loader.listing), generator=generator)[: settings.rows]
    batch = next(iter(loader.with_order(chosen.tolist())))
    partners = derangement(len(batch.images), generator)
    images, targets = cue_conflict(
        batch.images,
        soft_targets(batch.labels, len(loader.classes)),
        partners,
        stylizer=Stylizer.load(settings.stylizer),
        alpha=settings.alpha,
        shape_weight=settings.shape_weight,
    )
    names = [short_name(loader.classes[label]) for label in batch.labels.tolist()]
    columns = {"content (shape)": batch.images, "style (texture)": batch.images[partners], "cue conflict": images}
    captions = {
        "content (shape)": names,
        "style (texture)": [names[partner] for partner in partners.tolist()],
        "cue conflict": [describe(row, loader.classes) for row in targets],
    }
    save_sheet(out, columns, captions)


def describe(target: Targets, classes: tuple[str, ...]) -> str:
    """A soft label (K,) in words: "0.8 church + 0.2 tench"."""
    weights, order = target.sort(descending=True, stable=True)
    parts = zip(weights.tolist(), order.tolist(), strict=True)
    return " + ".join(f"{weight:.2g} {short_name(classes[index])}" for weight, index in parts if weight > 0)
