"""Targets that follow the window and the flip of their image, through both engines."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from debias.pipelines.loading.listing import list_images
from debias.pipelines.loading.loader import annotated_loader

HEIGHT, WIDTH, SIZE = 40, 60, (24, 32)


@dataclass(frozen=True)
class Spots:
    """Where the white square of each image is: rows of left, top, right, bottom in pixels of what the network sees."""

    boxes: torch.Tensor

    def __len__(self):
        return len(self.boxes)

    def __getitem__(self, images):
        return Spots(self.boxes[images])

    def to(self, device):
        return Spots(self.boxes.to(device))


def corners(index):
    left, top = 4 + 9 * index, 3 + 5 * index
    return left, top, left + 14, top + 12


@pytest.fixture
def listing(tmp_path):
    for index in range(4):
        pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        left, top, right, bottom = corners(index)
        pixels[top:bottom, left:right] = 255
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return list_images(tmp_path, flat=True)


def follow(draws):
    boxes = []
    for index, window, resize, flip in zip(draws.indices, draws.windows, draws.resizes, draws.flips, strict=True):
        top, left, height, width = window
        across, down = resize[1] / width, resize[0] / height
        x0, y0, x1, y1 = corners(int(index))
        x0, x1, y0, y1 = (x0 - left) * across, (x1 - left) * across, (y0 - top) * down, (y1 - top) * down
        if flip:
            x0, x1 = SIZE[1] - x1, SIZE[1] - x0
        boxes.append([x0, y0, x1, y1])
    return Spots(torch.tensor(boxes))


def loader(listing, *, train, engine="torchvision", **others):
    return annotated_loader(listing, lambda found: follow, SIZE, 2, train=train, engine=engine, workers=1, **others)


@pytest.mark.parametrize("engine", ["torchvision", "dali"])
@pytest.mark.parametrize("train", [False, True])
def test_targets_follow_their_images(train, engine, listing):
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    flipped = 0
    for epoch in range(4):
        made = loader(listing, train=train, engine=engine, scale=(0.5, 1.0), seed=3)
        made.set_epoch(epoch)
        for batch in made:
            assert batch.images.shape == (2, 3, *SIZE)
            for image, (x0, y0, x1, y1) in zip(batch.images, batch.labels.boxes.tolist(), strict=True):
                inside = (max(0, x0), max(0, y0), min(SIZE[1], x1), min(SIZE[0], y1))
                rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
                flipped += x0 > SIZE[1] / 2
                if len(rows) == 0:  # the window left the square out, or a sliver of it in
                    assert min(inside[2] - inside[0], inside[3] - inside[1]) <= 1
                    continue
                seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                assert all(abs(a - b) <= 1 for a, b in zip(seen, inside, strict=True))
    assert flipped or not train


def test_evaluation_shows_each_whole_image_once_in_order(listing):
    batches = list(loader(listing, train=False))
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 2, 3]
    expected = torch.tensor([corners(index) for index in range(4)]) * torch.tensor([32 / 60, 24 / 40] * 2)
    assert torch.allclose(torch.cat([batch.labels.boxes for batch in batches]).float(), expected.float())


def test_what_sees_both_comes_after_what_sees_images_alone(listing):
    def augment(images, indices, epoch):
        return images * 0 + 0.25

    def both(images, targets, indices, epoch):
        assert float(images.mean()) == 0.25
        return images + indices.view(-1, 1, 1, 1), Spots(targets.boxes + 100)

    made = loader(listing, train=True, augment=augment, augment_both=both)
    assert made.augmenter == "augment"
    batch, *_ = made
    assert batch.images[:, 0, 0, 0].tolist() == [0.25 + index for index in batch.indices.tolist()]
    assert float(batch.labels.boxes.max()) > 100
    with pytest.raises(ValueError, match=r"^augment_both: for train=True"):
        loader(listing, train=False, augment_both=both)


def test_an_interrupted_epoch_goes_on_with_the_same_targets(listing):
    whole = [batch.labels.boxes for batch in loader(listing, train=True, seed=5)]
    made = loader(listing, train=True, seed=5)
    next(iter(made))
    again = loader(listing, train=True, seed=5)
    again.load_state_dict(made.state_dict())
    rest = [batch.labels.boxes for batch in again]
    assert len(rest) == 1
    assert torch.equal(rest[0], whole[1])


def test_annotate_is_asked_once_about_the_usable_samples(listing, tmp_path):
    (tmp_path / "1.png").write_bytes(b"no image")
    seen = []

    def annotate(found):
        seen.append(found.listing.names)
        return follow

    annotated_loader(list_images(tmp_path, flat=True), annotate, SIZE, 2, train=False, engine="torchvision")
    assert seen == [("0.png", "2.png", "3.png")]
