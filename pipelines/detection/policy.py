"""AutoAugment for boxes as a table, and what it draws for one image.

Zoph et al., Learning Data Augmentation Strategies for Object Detection, ECCV 2020: policy v0, the one of the paper's
results, with the operators' ranges of the published code (google/automl, efficientdet/aug). Its pixels are those of
COCO's photos, whose longer side is 640: here they are shares of the longer side, so that small images keep something.
"""

from collections.abc import Callable, Sequence

from ..photometric.policies import NOTHING, Operation, Plan

Step = tuple[str, float, int]  # operator, probability, level of 10

LEVELS = 10
LONGER_SIDE = 640  # of the photos that the pixels below were meant for
NUMBERS = 7  # that an image needs, and one more for each of its boxes
ROW, CHANCES, SIGNS, CENTRE = 0, slice(1, 3), slice(3, 5), slice(5, 7)  # which of them is for what

V0: tuple[tuple[Step, Step], ...] = (
    (("TranslateX", 0.6, 4), ("Equalize", 0.8, 10)),
    (("TranslateYInBoxes", 0.2, 2), ("Cutout", 0.8, 8)),
    (("Sharpness", 0.0, 8), ("ShearX", 0.4, 0)),
    (("ShearY", 1.0, 2), ("TranslateYInBoxes", 0.6, 6)),
    (("Rotate", 0.6, 10), ("Color", 1.0, 6)),
)
IN_BOXES = 1 / 3  # of its probability: what is done to each box by itself would distort too many of them

# At the highest level; pixels are of LONGER_SIDE, the sign is drawn.
TRANSLATE_X, TRANSLATE_IN_BOX, SHEAR, ROTATE = 250, 120, 0.3, 30.0
CUTOUT = 100  # half the side of the square; no sign
WEAKEST, STRONGEST = 0.1, 1.9  # factors of colour and sharpness at levels 0 and 10


def draw(numbers: Sequence[float], size: tuple[int, int], boxes: int) -> Plan:
    """Return the two operations of one image of `size` (height, width) from `NUMBERS + boxes` numbers in [0, 1).

    Their values: TranslateX pixels; TranslateYInBoxes pixels, and the numbers of the boxes it is done to; ShearX and
    ShearY pixels a row or a column; Rotate degrees; Color, Sharpness factors; Cutout top, left, bottom, right.
    """
    row = V0[int(numbers[ROW] * len(V0))]
    return tuple(
        _operation(name, level / LEVELS, -1 if sign < 0.5 else 1, probability, numbers, size)
        if name == "TranslateYInBoxes" or chance < probability
        else NOTHING
        for (name, probability, level), chance, sign in zip(row, numbers[CHANCES], numbers[SIGNS], strict=True)
    )


def _operation(
    name: str, strength: float, sign: int, probability: float, numbers: Sequence[float], size: tuple[int, int]
) -> Operation:
    pixels = strength * max(size) / LONGER_SIDE
    if name == "TranslateYInBoxes":
        chosen = [k for k, chance in enumerate(numbers[NUMBERS:]) if chance < probability * IN_BOXES]
        return Operation(name, (sign * round(pixels * TRANSLATE_IN_BOX), *chosen))
    if name == "Cutout":
        return Operation(name, _square(numbers[CENTRE], round(pixels * CUTOUT), size))
    return Operation(name, VALUES[name](strength, sign, pixels))


VALUES: dict[str, Callable[[float, int, float], tuple[float, ...]]] = {
    "TranslateX": lambda strength, sign, pixels: (sign * round(pixels * TRANSLATE_X),),
    "ShearX": lambda strength, sign, pixels: (sign * strength * SHEAR,),
    "ShearY": lambda strength, sign, pixels: (sign * strength * SHEAR,),
    "Rotate": lambda strength, sign, pixels: (sign * strength * ROTATE,),
    "Color": lambda strength, sign, pixels: (WEAKEST + (STRONGEST - WEAKEST) * strength,),
    "Sharpness": lambda strength, sign, pixels: (WEAKEST + (STRONGEST - WEAKEST) * strength,),
    "Equalize": lambda strength, sign, pixels: (),
}


def _square(centre: Sequence[float], half: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square around a pixel drawn uniformly, as far as it lies in the image."""
    y, x = (int(number * side) for number, side in zip(centre, size, strict=True))
    return max(0, y - half), max(0, x - half), min(size[0], y + half), min(size[1], x + half)
