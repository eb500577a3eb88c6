"""Boxes follow the pixels: through window, resize, corner and flip, in both engines, and back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from debias.pipelines.detection import BoxAugmenter, Boxes, list_detection
from debias.pipelines.detection.geometry import KEPT_SHARE, cut, to_file, to_network
from debias.pipelines.loading.engines import engine_batches
from debias.pipelines.loading.listing import list_images
from debias.pipelines.loading.loader import ImageLoader, annotated_loader
from debias.pipelines.loading.sampler import Draws, EvalDraws, TrainDraws
from debias.pipelines.loading.scan import scan

try:
    import nvidia.dali  # noqa: F401

    ENGINES = ["dali", "torchvision"]
except ImportError:
    ENGINES = ["torchvision"]

engines = pytest.mark.parametrize("engine", ENGINES)
COUNT = 24


def draws(
    window: tuple[int, ...], resize: tuple[int, int], corner: tuple[int, int] = (0, 0), flipped: bool = False
) -> Draws:
    return Draws(
        np.array([0]), np.array([window]), np.array([resize]), np.array([corner]), np.array([flipped], dtype=np.bool_)
    )


def by_hand(box: list[float], draw: Draws, width: int) -> list[float]:
    """Corner by corner, from the words of `Draws`."""
    top, left, tall, wide = draw.windows[0]
    points = []
    for x, y in ((box[0], box[1]), (box[2], box[3])):
        x = (x - left) / wide * draw.resizes[0][1] - draw.corners[0][1]
        y = (y - top) / tall * draw.resizes[0][0] - draw.corners[0][0]
        points.append((width - x if draw.flips[0] else x, y))
    (x, y), (u, v) = points
    return [min(x, u), min(y, v), max(x, u), max(y, v)]


# --- arithmetic -----------------------------------------------------------------------------------------------------


def test_the_whole_image_at_its_own_size_changes_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 30], [3, 5, 9.5, 11.25]])
    draw = draws((0, 0, 30, 40), (30, 40))
    assert torch.equal(to_network(boxes, draw, 0, (30, 40)), boxes)
    inside, stays = cut(boxes, (30, 40))
    assert torch.equal(inside, boxes)
    assert stays.all()


@pytest.mark.parametrize("flipped", [False, True])
def test_against_a_plain_loop(flipped: bool) -> None:
    draw = draws((7, 11, 40, 50), (64, 96), (4, 9), flipped)
    boxes = torch.tensor([[0.0, 0, 100, 80], [20, 10, 30, 33], [-5, 60, 12, 71]])
    expected = torch.tensor([by_hand(box, draw, 80) for box in boxes.tolist()]).float()
    torch.testing.assert_close(to_network(boxes, draw, 0, (56, 80)), expected)


def test_the_way_back_undoes_the_way_there() -> None:
    random = np.random.default_rng(0)
    train = TrainDraws((33, 57), seed=1, scale=(0.3, 1.0))
    for index in range(50):
        shape = random.integers(20, 200, (1, 2))
        draw = train(np.array([index]), shape, epoch=0)
        boxes = torch.from_numpy(random.uniform(-50, 250, (5, 4))).float()
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].abs()
        back = to_file(to_network(boxes, draw, 0, (33, 57)), draw, 0, (33, 57))
        torch.testing.assert_close(back, boxes, atol=1e-3, rtol=1e-5)


def test_two_flips_are_none() -> None:
    boxes = torch.tensor([[3.0, 5, 9, 11]])
    once = to_network(boxes, draws((0, 0, 30, 40), (30, 40), flipped=True), 0, (30, 40))
    assert once.tolist() == [[31, 5, 37, 11]]
    assert torch.equal(to_network(once, draws((0, 0, 30, 40), (30, 40), flipped=True), 0, (30, 40)), boxes)


# --- what stays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "stays"),
    [
        ((10, 10, 20, 20), True),
        ((-4.9, 10, 5.1, 20), True),  # the centre just inside
        ((-7.5, 10, 2.5, 20), True),  # a fourth left
        ((-7.6, 10, 2.4, 20), False),
        ((-100, -100, 130, 120), True),  # its centre is: the object fills the picture
        ((-30, 10, -5, 20), False),
        ((40, 10, 60, 20), False),  # it begins where the image ends
        ((-1, 10, 0.9, 20), False),  # nearly half, but thinner than a pixel
        ((5, 5, 5.2, 5.2), True),  # small, but nothing was cut off
        ((5, 5, 5, 5), False),
    ],
)
def test_which_boxes_stay(box: tuple[float, ...], stays: bool) -> None:
    inside, kept = cut(torch.tensor([box], dtype=torch.float32), (30, 40))
    assert kept.tolist() == [stays]
    assert inside.min() >= 0
    assert (inside <= torch.tensor([40, 30, 40, 30])).all()


def test_the_share_is_the_documented_one() -> None:
    assert KEPT_SHARE == 0.25


# --- pixels ---------------------------------------------------------------------------------------------------------


def rectangles(root: Path) -> tuple[Path, NDArray[np.int64]]:
    """Dark images of many sizes with one bright rectangle each; returns the folder and the (COUNT, 4) boxes."""
    (root / "a").mkdir(parents=True)
    random = np.random.default_rng(3)
    boxes = np.zeros((COUNT, 4), dtype=np.int64)
    for index in range(COUNT):
        height, width = random.integers(60, 160, 2)
        left, top = random.integers(0, width // 2), random.integers(0, height // 2)
        right, bottom = random.integers(left + width // 4, width + 1), random.integers(top + height // 4, height + 1)
        pixels = np.full((height, width, 3), 20, dtype=np.uint8)
        pixels[top:bottom, left:right] = 230
        boxes[index] = left, top, right, bottom
        Image.fromarray(pixels).save(root / "a" / f"{index:02d}.png")
    return root, boxes


def bright(image: Tensor) -> list[float] | None:
    """The frame of what is brighter than half, left, top, right, bottom; None where nothing is."""
    ys, xs = torch.nonzero(image.mean(dim=0) > 125 / 255, as_tuple=True)
    if not len(xs):
        return None
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


@engines
@pytest.mark.parametrize("plan", ["train", "evaluate", "crop"])
def test_a_box_frames_its_rectangle_to_a_pixel_after_the_real_engine(tmp_path: Path, engine: str, plan: str) -> None:
    folder, boxes = rectangles(tmp_path / "photos")
    found, size = scan(list_images(folder)), (72, 90)
    maker: TrainDraws | EvalDraws = EvalDraws(size, crop=0.8) if plan == "crop" else EvalDraws(size)
    if plan == "train":
        maker = TrainDraws(size, seed=5, scale=(0.4, 1.0))
    draw = maker(np.arange(COUNT), found.shapes, epoch=0)
    if plan == "evaluate":  # as a detector is evaluated: the whole image, its aspect not kept
        draw = Draws(
            draw.indices, draw.windows, np.tile(np.array(size), (COUNT, 1)), np.zeros_like(draw.corners), draw.flips
        )
    if plan == "train":
        assert 0 < draw.flips.sum() < COUNT
    ((_, images, _),) = engine_batches(engine, found, iter([draw]), size, COUNT, torch.device("cpu"), 0, "bilinear")
    framed = 0
    for row in range(COUNT):
        placed = to_network(torch.from_numpy(boxes[row : row + 1]).float(), draw, row, size)
        inside, stays = cut(placed, size)
        seen = bright(images[row])
        if not stays[0] or seen is None:
            continue
        framed += 1
        assert (inside[0] - torch.tensor(seen)).abs().max() <= 1.0, (row, inside, seen)
        if torch.equal(inside, placed):
            back = to_file(torch.tensor([seen], dtype=torch.float32), draw, row, size)[0]
            pixel = max(draw.windows[row, 2] / draw.resizes[row, 0], draw.windows[row, 3] / draw.resizes[row, 1])
            assert (back - torch.from_numpy(boxes[row])).abs().max() <= pixel + 1e-3
    assert framed > COUNT // 2


# --- the set's own targets ------------------------------------------------------------------------------------------


def test_targets_of_a_batch(voc: Path) -> None:
    found = list_detection(voc, "train")
    usable = scan(found.listing)
    size = (48, 64)
    draw = TrainDraws(size, seed=2, scale=(0.2, 0.6))(np.array([2, 0, 3]), usable.shapes[[2, 0, 3]], epoch=1)
    targets = found.annotate(usable)(draw)
    assert targets.ids.tolist() == [2, 0, 3]
    for row, index in enumerate([2, 0, 3]):
        inside, stays = cut(to_network(found.boxes(index), draw, row, size), size)
        assert torch.equal(targets.boxes[row], inside[stays])
        assert torch.equal(targets.labels[row], found.objects(index).labels[stays])
        assert targets.boxes[row].dtype == torch.float32


def test_ids_are_the_sets_own_where_the_loader_has_fewer_images(voc: Path) -> None:
    found = list_detection(voc, "train")
    (voc / "JPEGImages" / "1.jpg").write_bytes(b"")
    usable = scan(list_detection(voc, "train").listing)
    assert len(usable.listing) == 3
    draw = EvalDraws((48, 64))(np.array([1]), usable.shapes[[1]], epoch=0)
    whole = Draws(draw.indices, draw.windows, np.array([[48, 64]]), np.zeros((1, 2), dtype=np.int64), draw.flips)
    targets = found.annotate(usable)(whole)
    assert targets.ids.tolist() == [2]
    torch.testing.assert_close(found.to_file(2, targets.boxes[0], (48, 64)), found.boxes(2))
    with pytest.raises(ValueError, match="cut nothing behind the resize"):
        found.annotate(usable)(draw)


# --- the loader -----------------------------------------------------------------------------------------------------


def loader(folder: Path, engine: str, *, train: bool = True) -> ImageLoader:
    found = list_detection(folder, "train")
    both = BoxAugmenter(4) if train else None
    return annotated_loader(
        found.listing, found.annotate, (48, 64), 2, train=train, engine=engine, seed=4, augment_both=both
    )


@engines
def test_a_loader_gives_images_with_the_boxes_of_the_same_samples(voc: Path, engine: str) -> None:
    made = loader(voc, engine, train=False)
    found = list_detection(voc, "train")
    for batch in made:
        assert isinstance(batch.labels, Boxes)
        assert torch.equal(batch.labels.ids, batch.indices)
        for boxes, index in zip(batch.labels.boxes, batch.indices.tolist(), strict=True):
            torch.testing.assert_close(found.to_file(index, boxes, (48, 64)), found.boxes(index))


@engines
def test_an_interrupted_epoch_goes_on_with_the_same_boxes(voc: Path, engine: str) -> None:
    made = loader(voc, engine)
    assert made.augmenter == "boxes-v0 by torchvision uint8"
    whole = [batch for _ in range(3) for batch in made]
    first = loader(voc, engine)
    first.set_epoch(2)
    next(iter(first))
    again = loader(voc, engine)
    again.load_state_dict(first.state_dict())
    (rest,) = list(again)
    assert torch.equal(rest.images, whole[-1].images)
    for name in ("boxes", "labels", "ignored"):
        for ours, theirs in zip(getattr(rest.labels, name), getattr(whole[-1].labels, name), strict=True):
            assert torch.equal(ours, theirs)
