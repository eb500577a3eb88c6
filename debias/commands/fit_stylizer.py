"""`debias fit-stylizer`: a stylizer network for one's own photos and styles, and how the shipped one was made."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from debias.pipelines import ImageLoader, image_loader
from debias.pipelines.contact_sheet import save_sheet
from debias.style_transfer import Images, Stylizer
from debias.style_transfer.files import check_outside, folder_lock, naming, sha256_file
from debias.style_transfer.fit import Fit, FitSettings
from debias.style_transfer.loss_network import LossNetwork
from debias.style_transfer.weights import ARCHITECTURES, new_network, save_fitted
from debias.train.checkpoint import Checkpoints
from debias.train.signals import Interruption

from .. import __version__
from ..options import check_device, dry_run_option, options, picked, print_settings
from ..progress import Progress
from ..terminal import say_skipped

LOG_EVERY = 50  # steps
SHEET_IMAGES = 6


@click.command()
@click.option("--content", required=True, help="Folder of photos.")
@click.option("--styles", required=True, help="Folder of textures or paintings, with or without class folders.")
@click.option(
    "--loss-network",
    "loss_file",
    required=True,
    type=click.Path(path_type=Path),
    help="Frozen judge: vgg_normalised.pth, torchvision's VGG-19 or a distilled VGG-19; for vgg19 its encoder too.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .safetensors file to make.")
@click.option("--arch", type=click.Choice(list(ARCHITECTURES)), default="compact", show_default=True, help="Network.")
@options(FitSettings)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--save-every", type=click.IntRange(1), default=200, show_default=True, help="Steps between checkpoints.")
@dry_run_option
def command(
    content: str,
    styles: str,
    loss_file: Path,
    out: Path,
    arch: str,
    device: str,
    save_every: int,
    dry_run: bool,
    **fields: Any,
) -> None:
    """Fit a stylizer network on your own photos and styles.

    Writes OUT, OUT.jsonl (losses, closure and edges), OUT.png (a contact sheet) and, until it is done, a folder
    OUT.checkpoints. Run the same command again to go on after an interruption.
    """
    settings = picked(FitSettings, fields)
    used = {"content": content, "styles": styles, "loss_network": str(loss_file), "arch": arch, **asdict(settings)}
    if dry_run:
        return print_settings(used)
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: must end in .safetensors")
    checkpoints = Checkpoints(out.with_name(out.name + ".checkpoints"))
    if out.exists():
        _clear(checkpoints)  # where a kill left them
        click.echo(f"{out} is complete; remove it to fit again")
        return None
    check_device(device)
    check_outside(out, "--out ", content, styles)
    try:
        with folder_lock(checkpoints.folder):
            _fit(out, content, styles, loss_file, arch, settings, device, save_every, checkpoints)
    finally:
        with contextlib.suppress(OSError):  # where nothing was saved
            checkpoints.folder.rmdir()
    _clear(checkpoints)
    click.echo(f"{out}  {out.stat().st_size / 1e6:.1f} MB\n{_sheet_of(out)}")
    return None


def _fit(
    out: Path,
    content: str,
    styles: str,
    loss_file: Path,
    arch: str,
    settings: FitSettings,
    device: str,
    save_every: int,
    checkpoints: Checkpoints,
) -> None:
    torch.manual_seed(settings.seed)
    network, trained = new_network(arch, loss_file)
    fit = Fit(network.to(device), LossNetwork.load(loss_file).to(device), settings, train=trained)
    photos, textures = _loaders(content, styles, settings, device)
    say_skipped(photos.bad + textures.bad)
    sources = {
        "arch": arch,
        "content": photos.state_dict()["digest"],
        "styles": textures.state_dict()["digest"],
        "loss_network": sha256_file(loss_file),
    }
    _resume(fit, sources, checkpoints, device)
    with Interruption() as interruption:
        batches = zip(endless(photos, fit.step), endless(textures, fit.step), strict=True)
        _run(fit, sources, batches, checkpoints, out, save_every, interruption)
    if fit.step < settings.steps:
        click.echo(f"stopped at step {fit.step} of {settings.steps}; the same command goes on from there", err=True)
        sys.exit(interruption.exit_code)
    # Names without their folders: the file travels, and where it was made is nobody's business.
    named = {"content": Path(content).name, "styles": Path(styles).name, "loss_network": loss_file.name, "arch": arch}
    made = checkpoints.folder / out.name  # OUT stands for a whole fit, sheet and all
    header = {"debias": __version__, "settings": json.dumps(named | asdict(settings))}
    save_fitted(made, arch, fit.network, header)
    _sheet(made, _sheet_of(out), next(endless(photos, 0)), next(endless(textures, 0)), device)
    os.replace(made, out)


def _clear(checkpoints: Checkpoints) -> None:
    checkpoints.clear()
    with contextlib.suppress(OSError):  # not there after a fit of few steps, or somebody keeps something in it
        checkpoints.folder.rmdir()


def _sheet_of(out: Path) -> Path:
    return out.with_name(out.name + ".png")


def endless(loader: ImageLoader, start: int) -> Iterator[Images]:
    """The loader's batches epoch after epoch, from batch number `start` on."""
    epoch, done = divmod(start, len(loader))
    loader.load_state_dict(loader.state_dict() | {"epoch": epoch, "batches": done})
    while True:
        for batch in loader:
            yield batch.images


def _loaders(content: str, styles: str, settings: FitSettings, device: str) -> tuple[ImageLoader, ImageLoader]:
    common: dict[str, Any] = {"size": settings.size, "device": device, "seed": settings.seed, "scale": (0.5, 1.0)}
    photos = image_loader(content, batch_size=settings.batch_size, flat=True, **common)
    # Textures are cut from a window of any size, so that one fine pattern is also seen coarse.
    common["scale"] = (0.1, 1.0)
    return photos, image_loader(styles, batch_size=max(settings.style_images, 1), flat=True, **common)


def _resume(fit: Fit, sources: dict[str, Any], checkpoints: Checkpoints, device: str) -> None:
    found = checkpoints.latest(device)
    for name, reason in checkpoints.passed_over.items():
        click.echo(f"checkpoint {name} is passed over: {reason}", err=True)
    if found is None:
        return
    _, state = found
    try:
        for name, value in sources.items():
            if state["sources"][name] != value:
                given = f"--{name.replace('_', '-')}"
                raise ValueError(f"the checkpoint was made with another {given}; give the same, or another --out")
        fit.load_state_dict(state["fit"])
    except ValueError as error:
        raise ValueError(f"{checkpoints.folder}: {error}") from error
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{checkpoints.folder}: of another version of debias; remove it to begin anew") from error
    click.echo(f"going on at step {fit.step} of {fit.settings.steps}")


def _run(
    fit: Fit,
    sources: dict[str, Any],
    batches: Iterator[tuple[Images, Images]],
    checkpoints: Checkpoints,
    out: Path,
    save_every: int,
    interruption: Interruption,
) -> None:
    """Fit to the last step, or to the one at which `interruption` asks to stop; then that one is saved."""
    with Progress(fit.settings.steps, "steps", fit.step) as progress:
        while fit.step < fit.settings.steps and not interruption.requested:
            content, textures = next(batches)
            style = textures[: fit.settings.style_images]
            losses = fit.advance(content, style)
            note = ""
            if fit.step % LOG_EVERY == 0 or fit.step == fit.settings.steps:
                note = _log(out, fit, losses, fit.quality(content, style))
            if fit.step % save_every == 0:
                checkpoints.save({"sources": sources, "fit": fit.state_dict()}, fit.step)
            progress.advance(note=note)
    if fit.step < fit.settings.steps:
        checkpoints.save({"sources": sources, "fit": fit.state_dict()}, fit.step)


def _log(out: Path, fit: Fit, losses: dict[str, Tensor], quality: dict[str, float]) -> str:
    values = {name: float(value) for name, value in losses.items()} | quality
    line = {"step": fit.step, **{name: round(value, 5) for name, value in values.items()}}
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(out.name + ".jsonl")
    with naming(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return f"closure {quality['closure']:.2f} edges {quality['edges']:.2f} content {values['content']:.3f}"


def _sheet(fitted: Path, sheet: Path, photos: Images, textures: Images, device: str) -> None:
    stylizer = Stylizer.load(fitted, device=device)
    content = photos[:SHEET_IMAGES]
    style = torch.cat([textures, photos])[: len(content)]  # with a texture before them no photo meets itself
    columns = {"content": content, "style": style}
    columns |= {f"alpha {alpha:g}": stylizer(content, style, alpha) for alpha in (1.0, 0.5, 0.0)}
    save_sheet(sheet, columns)
