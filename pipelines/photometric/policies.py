"""AutoAugment and RandAugment as tables, and what either draws for one image.

AutoAugment is Cubuk et al., AutoAugment: Learning Augmentation Policies from Data, CVPR 2019, with the 25 sub-policies
found on ImageNet. RandAugment is Cubuk et al., RandAugment: Practical Automated Data Augmentation with a
Reduced Search Space, NeurIPS 2020. Names, ranges and signs are torchvision's.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Operation(NamedTuple):
    """One operator and what it is given, in the units of 8-bit images; a plan is a row of them.

    ShearX, ShearY: pixels a row or a column; TranslateX, TranslateY: whole pixels; Rotate: degrees against the clock;
    Brightness, Color, Contrast, Sharpness: the factor less 1; Hue: share of the colour circle; Posterize: bits kept;
    Solarize: the first level inverted; Blur: σ and the side of the kernel, in pixels; Erase: top, left, bottom, right;
    AutoContrast, Equalize, Invert, Grayscale, Identity: nothing.
    """

    name: str
    values: tuple[float, ...] = ()


Plan = tuple[Operation, ...]
SubPolicy = tuple[tuple[str, float, int], tuple[str, float, int]]  # twice: operator, probability, level of 9

NOTHING = Operation("Identity")
LEVELS, MAGNITUDES = 9, 30  # the greatest of AutoAugment and of RandAugment

# Weakest, strongest, and whether the sign is drawn. Translations are shares of the side: 150 pixels of 331.
RANGES: dict[str, tuple[float, float, bool]] = {
    "ShearX": (0.0, 0.3, True),
    "ShearY": (0.0, 0.3, True),
    "TranslateX": (0.0, 150 / 331, True),
    "TranslateY": (0.0, 150 / 331, True),
    "Rotate": (0.0, 30.0, True),
    "Brightness": (0.0, 0.9, True),
    "Color": (0.0, 0.9, True),
    "Contrast": (0.0, 0.9, True),
    "Sharpness": (0.0, 0.9, True),
    "Posterize": (8.0, 4.0, False),
    "Solarize": (255.0, 0.0, False),
}

RANDAUGMENT = ("Identity", *RANGES, "AutoContrast", "Equalize")

# An operator without a range has level 0. Some rows stand twice, as they do in torchvision.
IMAGENET: tuple[SubPolicy, ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)


def operation(name: str, strength: float, negative: bool, size: tuple[int, int]) -> Operation:
    """Return operator `name` at `strength`, 0 its weakest and 1 its strongest, for images of `size` (height, width)."""
    if name not in RANGES:
        return Operation(name)
    weakest, strongest, signed = RANGES[name]
    value = weakest + (strongest - weakest) * strength
    if signed and negative:
        value = -value
    if name in ("TranslateX", "TranslateY"):
        value = int(value * size[name == "TranslateX"])  # towards 0, as in torchvision
    return Operation(name, (round(value) if name == "Posterize" else value,))


def autoaugment(numbers: Sequence[float], size: tuple[int, int]) -> Plan:
    """Return two operations from 5 `numbers` in [0, 1): the sub-policy, two for whether, two for the signs."""
    row = IMAGENET[int(numbers[0] * len(IMAGENET))]
    return tuple(
        operation(name, level / LEVELS, sign < 0.5, size) if chance < probability else NOTHING
        for (name, probability, level), chance, sign in zip(row, numbers[1:3], numbers[3:5], strict=True)
    )


def randaugment(numbers: Sequence[float], magnitude: float, size: tuple[int, int]) -> Plan:
    """Return n operations of `magnitude` (of 30) from 2n `numbers` in [0, 1): operator and sign of each in turn."""
    return tuple(
        operation(RANDAUGMENT[int(choice * len(RANDAUGMENT))], magnitude / MAGNITUDES, sign < 0.5, size)
        for choice, sign in zip(numbers[::2], numbers[1::2], strict=True)
    )
