"""Small sets of images and masks, made here: blocks of classes, which the colours tell."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import picture
from PIL import Image


def mask_of(height: int, width: int, classes: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of random classes with a border of 255."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes, (-(-height // 8), -(-width // 8)))
    mask = np.kron(blocks, np.ones((8, 8))).astype(np.uint8)[:height, :width]
    mask[:2] = 255
    return mask


def save_pair(root: Path, split: str, name: str, size: tuple[int, int], classes: int, seed: int) -> None:
    """An image and its mask, below `images/` and `masks/`."""
    for kind in ("images", "masks"):
        (root / kind / split / name).parent.mkdir(parents=True, exist_ok=True)
    mask = mask_of(*size, classes, seed)
    colours = np.asarray(picture(*size, seed=seed)) // 2 + (mask[..., None] % classes) * 30
    Image.fromarray(colours.astype(np.uint8)).save(root / "images" / split / f"{name}.jpg", quality=95)
    Image.fromarray(mask).save(root / "masks" / split / f"{name}.png")


def segmentation_folder(root: Path, count: int = 8, classes: int = 3) -> Path:
    """`count` images to train on and 4 to validate on, of several sizes."""
    for split, number in (("train", count), ("val", 4)):
        for index in range(number):
            save_pair(root, split, f"{index:02d}", (40 + 3 * (index % 8), 64 - 2 * (index % 8)), classes, index)
    return root
