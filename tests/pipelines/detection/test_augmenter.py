"""AutoAugment for boxes: drawn for each image by itself, boxes that follow, the published policy."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from debias.pipelines.detection import BoxAugmenter, Boxes
from debias.pipelines.detection import augmenter as augmenter_module
from debias.pipelines.detection.augmenter import apply, draw_plan
from debias.pipelines.detection.policy import NUMBERS, V0, draw
from debias.pipelines.loading.sampler import uniforms
from debias.pipelines.photometric.policies import NOTHING, Operation

SIZE = (96, 128)
DARK, BRIGHT = 20, 230
RECTANGLE = [40.0, 30.0, 90.0, 62.0]


def rectangle(box: list[float], size: tuple[int, int] = SIZE) -> Tensor:
    """A dark image (3, H, W) uint8 with one bright rectangle."""
    image = torch.full((3, *size), DARK, dtype=torch.uint8)
    left, top, right, bottom = map(int, box)
    image[:, top:bottom, left:right] = BRIGHT
    return image


def bright(image: Tensor) -> Tensor:
    ys, xs = torch.nonzero(image[0] > 180, as_tuple=True)
    return torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=torch.float32)


def changed(operation: Operation, box: list[float] = RECTANGLE) -> tuple[Tensor, Tensor]:
    image, boxes = apply(rectangle(box), torch.tensor([box]), torch.tensor([False]), (operation,))
    return image, boxes[0]


def batch(count: int = 6) -> tuple[Tensor, Boxes, Tensor]:
    random = np.random.default_rng(0)
    corners = np.stack([random.uniform(0, 50, (count, 2, 2)), random.uniform(60, 96, (count, 2, 2))], axis=2)
    boxes = tuple(torch.from_numpy(each.reshape(2, 4)).float() for each in corners)
    images = torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    labels = tuple(torch.tensor([0, 1]) for _ in range(count))
    ignored = tuple(torch.tensor([False, True]) for _ in range(count))
    return images, Boxes(boxes, labels, torch.arange(count), ignored), torch.arange(10, 10 + count)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_none_gives_the_very_same_back() -> None:
    images, targets, indices = batch()
    augment = BoxAugmenter(0, "none")
    assert augment.name == "off"
    made = augment(images, targets, indices, 0)
    assert made[0] is images
    assert made[1] is targets


def test_another_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="--policy of a detector must be none or boxes-v0, got 'v1'"):
        BoxAugmenter(0, "v1")  # type: ignore[arg-type]


def test_a_plan_of_nothing_changes_nothing() -> None:
    image, boxes = apply(rectangle(RECTANGLE), torch.tensor([RECTANGLE]), torch.tensor([False]), (NOTHING, NOTHING))
    assert torch.equal(image, rectangle(RECTANGLE))
    assert boxes.tolist() == [RECTANGLE]


def test_images_without_boxes_and_no_images() -> None:
    images, targets, indices = batch()
    none = Boxes(
        tuple(torch.empty(0, 4) for _ in range(6)),
        tuple(torch.empty(0, dtype=torch.int64) for _ in range(6)),
        targets.ids,
        tuple(torch.empty(0, dtype=torch.bool) for _ in range(6)),
    )
    made, boxes = BoxAugmenter(0)(images, none, indices, 0)
    assert made.shape == images.shape
    assert all(each.shape == (0, 4) for each in boxes.boxes)
    assert len(BoxAugmenter(0)(images[:0], targets[:0], indices[:0], 0)[1]) == 0


# --- the policy -----------------------------------------------------------------------------------------------------


def test_the_table_is_the_published_policy() -> None:
    published = [
        ("TranslateX_BBox", 0.6, 4, "Equalize", 0.8, 10),
        ("TranslateY_Only_BBoxes", 0.2, 2, "Cutout", 0.8, 8),
        ("Sharpness", 0.0, 8, "ShearX_BBox", 0.4, 0),
        ("ShearY_BBox", 1.0, 2, "TranslateY_Only_BBoxes", 0.6, 6),
        ("Rotate_BBox", 0.6, 10, "Color", 1.0, 6),
    ]
    names = {"TranslateYInBoxes": "TranslateY_Only_BBoxes", "Equalize": "Equalize", "Cutout": "Cutout"}
    names |= {"Sharpness": "Sharpness", "Color": "Color"}
    assert [tuple(v for name, p, n in row for v in (names.get(name, f"{name}_BBox"), p, n)) for row in V0] == published


def numbers(row: int, *, chance: float = 0.0, sign: float = 0.9, centre: float = 0.5, boxes: int = 0) -> list[float]:
    return [(row + 0.5) / 5, chance, chance, sign, sign, centre, centre, *[chance] * boxes]


def test_values_at_the_size_of_coco_are_those_of_the_published_code() -> None:
    size = (480, 640)
    assert draw(numbers(0), size, 0) == (Operation("TranslateX", (100,)), Operation("Equalize"))
    assert draw(numbers(1, boxes=2), size, 2) == (
        Operation("TranslateYInBoxes", (24, 0, 1)),
        Operation("Cutout", (160, 240, 320, 400)),
    )
    assert draw(numbers(2), size, 0) == (NOTHING, Operation("ShearX", (0.0,)))  # sharpness has probability 0
    assert draw(numbers(3, boxes=1), size, 1) == (Operation("ShearY", (0.06,)), Operation("TranslateYInBoxes", (72, 0)))
    rotate, colour = draw(numbers(4), size, 0)
    assert rotate == Operation("Rotate", (30.0,))
    assert colour.values[0] == pytest.approx(0.6 * 1.8 + 0.1)
    assert draw(numbers(0, sign=0.1), size, 0)[0] == Operation("TranslateX", (-100,))


def test_pixels_shrink_with_the_image() -> None:
    assert draw(numbers(0), (120, 160), 0)[0] == Operation("TranslateX", (25,))
    assert draw(numbers(1, centre=0.0), (120, 160), 0)[1] == Operation("Cutout", (0, 0, 20, 20))


def test_each_operation_comes_as_often_as_the_table_says() -> None:
    count = 6_000
    plans = [draw(uniforms(NUMBERS + 4, 0, 0, index, 3).tolist(), SIZE, 4) for index in range(count)]
    seen = {
        name: sum(any(step.name == name for step in plan) for plan in plans) / count
        for name in ("TranslateX", "Equalize", "Cutout", "Sharpness", "ShearX", "ShearY", "Rotate", "Color")
    }
    expected = {name: p / 5 for row in V0 for name, p, _ in row if name != "TranslateYInBoxes"}
    for name, share in seen.items():
        assert abs(share - expected[name]) < 0.02, name
    inside = [step for plan in plans for step in plan if step.name == "TranslateYInBoxes" and abs(step.values[0]) > 9]
    chosen = sum(len(step.values) - 1 for step in inside) / (4 * len(inside))
    assert abs(chosen - 0.6 / 3) < 0.02  # a third of its probability, box by box
    assert abs(sum(step.values[0] > 0 for step in inside) / len(inside) - 0.5) < 0.05


# --- boxes follow the pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("name", "value"), [("TranslateX", 17), ("ShearX", 0.3), ("ShearY", 0.3), ("Rotate", 30.0)])
def test_a_box_frames_its_rectangle_to_a_pixel(name: str, value: float, sign: int) -> None:
    image, box = changed(Operation(name, (sign * value,)))
    assert (box - bright(image)).abs().max() <= 1.0, (box, bright(image))
    assert (box - torch.tensor(RECTANGLE)).abs().max() > 3  # it did move


def test_a_turn_is_about_the_centre_and_a_box_by_hand() -> None:
    _, box = changed(Operation("Rotate", (30.0,)))
    cosine, sine, points = math.cos(math.radians(30)), math.sin(math.radians(30)), []
    for x in RECTANGLE[::2]:
        for y in RECTANGLE[1::2]:
            u, v = x - SIZE[1] / 2, y - SIZE[0] / 2
            points.append((cosine * u - sine * v + SIZE[1] / 2, sine * u + cosine * v + SIZE[0] / 2))
    xs, ys = zip(*points, strict=True)
    torch.testing.assert_close(box, torch.tensor([min(xs), min(ys), max(xs), max(ys)]), atol=1e-3, rtol=0)


def test_shears_keep_the_first_row_or_column_as_in_the_published_code() -> None:
    left, top, right, bottom = RECTANGLE
    _, box = changed(Operation("ShearX", (0.3,)))
    torch.testing.assert_close(box, torch.tensor([left - 0.3 * bottom, top, right - 0.3 * top, bottom]))
    _, box = changed(Operation("ShearY", (0.3,)))
    torch.testing.assert_close(box, torch.tensor([left, top - 0.3 * right, right, bottom - 0.3 * left]))


def test_what_moved_away_leaves_grey() -> None:
    image, _ = changed(Operation("TranslateX", (17,)))
    assert (image[:, :, :17] == 128).all()
    assert (image[:, :, 17:] != 128).all()


@pytest.mark.parametrize("pixels", [-9, 9])
def test_inside_a_box_alone_the_content_moves(pixels: int) -> None:
    box = [38.0, 20.0, 92.0, 70.0]
    before = rectangle(RECTANGLE)
    image, boxes = apply(
        before.clone(), torch.tensor([box, box]), torch.tensor([False, True]),
        (Operation("TranslateYInBoxes", (pixels, 0, 1)),),
    )  # fmt: skip
    assert boxes.tolist() == [box, box]
    expected = before.clone()
    for y in range(20, 70):
        source = y - pixels
        expected[:, y, 38:92] = before[:, source, 38:92] if 20 <= source < 70 else 128
    assert torch.equal(image, expected)


def test_a_box_lower_than_the_shift_turns_grey_and_one_outside_changes_nothing() -> None:
    before = rectangle(RECTANGLE)
    boxes = torch.tensor([[50.0, 40, 60, 44], [-30, -20, -5, -2]])
    plan = (Operation("TranslateYInBoxes", (4, 0, 1)),)
    image, _ = apply(before.clone(), boxes, torch.tensor([False, False]), plan)
    expected = before.clone()
    expected[:, 40:44, 50:60] = 128
    assert torch.equal(image, expected)


def test_cutout_is_a_grey_square() -> None:
    image, box = changed(Operation("Cutout", (10, 50, 40, 80)))
    assert (image[:, 10:40, 50:80] == 128).all()
    image[:, 10:40, 50:80] = rectangle(RECTANGLE)[:, 10:40, 50:80]
    assert torch.equal(image, rectangle(RECTANGLE))
    assert box.tolist() == RECTANGLE


@pytest.mark.parametrize(
    "operation", [Operation("Equalize"), Operation("Color", (1.18,)), Operation("Sharpness", (1.54,))]
)
def test_colours_move_no_box(operation: Operation) -> None:
    images = batch()[0][0].mul(255).to(torch.uint8)
    image, boxes = apply(images, torch.tensor([RECTANGLE]), torch.tensor([False]), (operation,))
    assert boxes.tolist() == [RECTANGLE]
    assert not torch.equal(image, images)


def test_boxes_are_cut_at_the_end_with_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = (Operation("TranslateX", (80,)), Operation("TranslateX", (-20,)))
    monkeypatch.setattr(augmenter_module, "draw_plan", lambda *arguments: plan)
    boxes = torch.tensor([[30.0, 10, 60, 40], [50, 10, 90, 40], [100, 10, 120, 40]])
    targets = Boxes((boxes,), (torch.tensor([5, 6, 7]),), torch.tensor([3]), (torch.tensor([False, True, False]),))
    image = rectangle(RECTANGLE)[None].float() / 255
    _, made = BoxAugmenter(0)(image, targets, torch.tensor([3]), 0)
    assert made.boxes[0].tolist() == [[90, 10, 120, 40], [110, 10, 128, 40]]
    assert made.labels[0].tolist() == [5, 6]
    assert made.ignored[0].tolist() == [False, True]
    assert made.ids.tolist() == [3]


# --- what a draw depends on -----------------------------------------------------------------------------------------


def equal(a: Boxes, b: Boxes) -> bool:
    return all(
        torch.equal(x, y)
        for name in ("boxes", "labels", "ignored")
        for x, y in zip(getattr(a, name), getattr(b, name), strict=True)
    )


def test_an_image_does_not_depend_on_its_batch() -> None:
    images, targets, indices = batch()
    augment = BoxAugmenter(3)
    whole, boxes = augment(images, targets, indices, 2)
    part, some = augment(images[2:5], targets[2:5], indices[2:5], 2)
    assert torch.equal(whole[2:5], part)
    assert equal(boxes[2:5], some)


def test_seed_epoch_and_index_change_the_draw() -> None:
    plans = {draw_plan(seed, epoch, index, SIZE, 3) for seed in range(3) for epoch in range(3) for index in range(3)}
    assert len(plans) > 15
    assert draw_plan(1, 1, 1, SIZE, 3) == draw_plan(1, 1, 1, SIZE, 3)


def test_more_boxes_do_not_change_what_is_drawn_for_the_first() -> None:
    for index in range(50):
        few, many = (draw_plan(0, 0, index, SIZE, count) for count in (2, 9))
        for a, b in zip(few, many, strict=True):
            assert a.name == b.name
            if a.name == "TranslateYInBoxes":
                assert a.values == tuple(v for place, v in enumerate(b.values) if place == 0 or v < 2)
            else:
                assert a.values == b.values


def test_nothing_else_changes() -> None:
    images, targets, indices = batch()
    copies = images.clone(), [boxes.clone() for boxes in targets.boxes]
    state = torch.get_rng_state()
    made, boxes = BoxAugmenter(0)(images, targets, indices, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, copies[0])
    assert all(torch.equal(a, b) for a, b in zip(targets.boxes, copies[1], strict=True))
    assert made.dtype == torch.float32
    assert made.min() >= 0
    assert made.max() <= 1
    assert all(type(each) is Tensor for each in boxes.boxes)
    assert all((each >= 0).all() and (each <= torch.tensor([128, 96, 128, 96])).all() for each in boxes.boxes)


def test_parts_that_do_not_fit_are_refused() -> None:
    images, targets, indices = batch()
    with pytest.raises(ValueError, match="6 images came with 5 targets and 6 indices"):
        BoxAugmenter(0)(images, targets[1:], indices, 0)
