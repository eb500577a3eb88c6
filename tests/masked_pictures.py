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


def voc_masks(root: Path) -> Path:
    """VOC with 3 images to train on, 1 to validate on, and one that is in no list."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    palette = [value for colour in range(256) for value in (colour, 255 - colour, 7)]
    for index in range(5):
        picture(30, 40, seed=index).save(root / "JPEGImages" / f"2007_{index}.jpg")
        mask = Image.fromarray(mask_of(30, 40, 21, index), "P")
        mask.putpalette(palette)
        mask.save(root / "SegmentationClass" / f"2007_{index}.png")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_0\n2007_1\n2007_2\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_3\n\n")
    return root
