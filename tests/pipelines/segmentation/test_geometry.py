"""Masks stay on their pixels: an image whose colours are its mask goes through the real loader, in both engines."""

from pathlib import Path

import numpy as np
import pytest
import torch
from masked_pictures import segmentation_folder
from numpy.typing import NDArray
from PIL import Image

from debias.pipelines.loading.loader import ImageLoader, annotated_loader
from debias.pipelines.loading.sampler import Draws, EvalDraws
from debias.pipelines.segmentation import IGNORE, PixelTargets, list_segmentation
from debias.pipelines.segmentation.masks import drawn_masks

SIZES = [(90, 140), (128, 96), (60, 61), (201, 150)]
SIZE = (48, 64)


def stripes(height: int, width: int, across: bool, seed: int) -> NDArray[np.uint8]:
    """Bands of 0 and 1, each 15 to 30 pixels wide: their edges are straight, so that filters keep them in place."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.integers(15, 30, 20))
    line = np.searchsorted(ends, np.arange(width if across else height), side="right") % 2
    return np.ascontiguousarray(np.broadcast_to(line if across else line[:, None], (height, width)).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for index, size in enumerate(SIZES * 2):
        mask = stripes(*size, across=index < len(SIZES), seed=index)
        Image.fromarray(np.repeat(mask[..., None] * 255, 3, axis=2)).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


def loader(folder: Path, engine: str, *, train: bool, seed: int = 0) -> ImageLoader:
    found, scale = list_segmentation(folder), (0.2, 1.0)
    return annotated_loader(found.listing, found.annotate, SIZE, 4, train=train, engine=engine, seed=seed, scale=scale)


def apart(images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of pixels whose image, where it is clearly one colour, is not that of the label."""
    value = images[:, 0]
    clear = (value - 0.5).abs() > 0.1
    assert clear.float().mean() > 0.8
    return float(((value > 0.5) != (labels == 1))[clear].float().mean())


@pytest.mark.parametrize("engine", ["torchvision", "dali"])
@pytest.mark.parametrize("train", [False, True])
def test_masks_stay_on_their_pixels(folder: Path, engine: str, train: bool) -> None:
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    made = loader(folder, engine, train=train, seed=1)
    seen = 0
    for epoch in range(4 if train else 1):
        made.set_epoch(epoch)
        for batch in made:
            labels = batch.labels.labels
            assert labels.shape == (len(batch.images), *SIZE)
            assert apart(batch.images, labels) == 0
            assert apart(batch.images, labels.roll((1, 1), (1, 2))) > 0.01  # a pixel off would show
            seen += len(labels)
    assert seen == (32 if train else 8)


def test_flips_and_windows_differ_between_epochs(folder: Path) -> None:
    made = loader(folder, "torchvision", train=True)
    first = torch.cat([batch.labels.labels for batch in made])
    second = torch.cat([batch.labels.labels for batch in made])
    assert not torch.equal(first, second)


def test_a_mask_at_its_own_size_is_itself(tmp_path: Path) -> None:
    found = list_segmentation(segmentation_folder(tmp_path))
    mask = found.mask(0)
    made = annotated_loader(found.listing, found.annotate, (40, 64), 4, train=False, engine="torchvision")
    batch = next(iter(made))
    assert isinstance(batch.labels, PixelTargets)
    assert batch.labels.classes == 3
    assert (batch.labels.labels[0].numpy() == mask).all()
    assert (batch.labels.labels[0, :2] == IGNORE).all()


def test_each_pixel_takes_the_class_at_its_centre() -> None:
    """The plain loop: centres of the new pixels in the old ones."""
    mask = np.arange(7 * 11, dtype=np.uint8).reshape(7, 11)
    draws = Draws(
        indices=np.array([0]),
        windows=np.array([[1, 2, 5, 8]]),
        resizes=np.array([[9, 6]]),
        corners=np.array([[0, 0]]),
        flips=np.array([True]),
    )
    (made,) = drawn_masks([mask], draws)
    for y in range(9):
        for x in range(6):
            across = 6 - 1 - x  # flipped
            assert made[y, x] == mask[1 + int((y + 0.5) * 5 / 9), 2 + int((across + 0.5) * 8 / 6)]


def test_draws_that_cut_after_resizing_are_refused() -> None:
    draws = EvalDraws((4, 4))(np.array([0]), np.array([[10, 20]]), 0)
    with pytest.raises(ValueError, match=r"^masks follow a window, a resize and a flip; nothing is cut after them$"):
        drawn_masks([np.zeros((10, 20), np.uint8)], draws)
