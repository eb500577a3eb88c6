"""What a batch holds beside its images: a second view of the same files, and what augmentation made of either."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from debias.pipelines import Batch, ImageLoader, image_loader
from debias.pipelines.loading.engines import pick_engine

ENGINES = sorted({pick_engine("auto"), "torchvision"})
engines = pytest.mark.parametrize("engine", ENGINES)


def load(data: Path, **options: Any) -> ImageLoader:
    return image_loader(data, **{"size": 32, "batch_size": 4, "engine": "torchvision", **options})


def pixels(batches: list[Batch], field: str = "images") -> Tensor:
    return torch.cat([getattr(batch, field) for batch in batches])


@engines
@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_view_leaves_the_first_as_it_was(photo_folder: Path, engine: str, workers: int) -> None:
    alone = list(load(photo_folder, engine=engine))
    both = list(load(photo_folder, engine=engine, second=True, workers=workers))
    assert all(batch.augmented is None for batch in alone)
    assert torch.equal(pixels(both), pixels(alone))
    for field in ("labels", "indices"):
        assert torch.equal(pixels(both, field), pixels(alone, field))
    assert pixels(both, "augmented").shape == (12, 3, 32, 32)
    assert all(batch.stylized is None and batch.textures is None for batch in both)


@engines
def test_the_second_view_is_a_window_of_its_own_of_the_same_file(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, batch_size=12, second=True)
    (batch,) = list(loader)
    assert batch.augmented is not None
    draws = loader._plan.draw(batch.indices.numpy(), 0)
    assert draws.indices.tolist() == batch.indices.tolist() * 2
    assert (draws.windows[:12] != draws.windows[12:]).any(axis=1).all()
    assert 0 < (draws.flips[:12] ^ draws.flips[12:]).sum() < 12  # independent coins
    for row, (index, image) in enumerate(zip(batch.indices, batch.augmented, strict=True), 12):
        source = functional.pil_to_tensor(Image.open(photo_folder / loader.listing.names[index]))
        expected = functional.resized_crop(source, *draws.windows[row].tolist(), [32, 32], antialias=True)
        expected = expected.flip(-1) if draws.flips[row] else expected
        assert (image * 255 - expected).abs()[:, 1:-1, 1:-1].max() < 1.01


@engines
def test_without_chance_both_views_are_the_same(photo_folder: Path, engine: str) -> None:
    for batch in load(photo_folder, engine=engine, second=True, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0):
        assert batch.augmented is not None
        # No image is square, so no window of the whole area fits, and both views get the largest one in the centre.
        assert torch.equal(batch.augmented, batch.images)


@engines
def test_two_processes_cut_both_views(photo_folder: Path, engine: str) -> None:
    whole = list(load(photo_folder, engine=engine, second=True))
    ranks = [list(load(photo_folder, engine=engine, second=True, rank=rank, world_size=2)) for rank in range(2)]
    for field in ("images", "augmented", "labels", "indices"):
        for step, batch in enumerate(whole):
            assert torch.equal(pixels([rank[step] for rank in ranks], field), getattr(batch, field))


@engines
def test_a_resumed_epoch_gives_the_rest_of_both_views(photo_folder: Path, engine: str) -> None:
    loader = load(photo_folder, engine=engine, second=True)
    loader.set_epoch(3)
    whole = list(loader)
    loader.set_epoch(3)
    next(iter(loader))
    resumed = load(photo_folder, engine=engine, second=True)
    resumed.load_state_dict(loader.state_dict())
    rest = list(resumed)
    assert len(rest) == 2
    for field in ("images", "augmented"):
        assert torch.equal(pixels(rest, field), pixels(whole[1:], field))


class Darken:
    """Multiplies each image by a factor of its index and of the epoch, and remembers what it was given."""

    name = "darken 0.5"

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, int]] = []

    @staticmethod
    def factors(indices: Tensor, epoch: int) -> Tensor:
        return 1 / (2 + indices.float() + epoch)[:, None, None, None]

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        self.calls.append((images, indices, epoch))
        return images * self.factors(indices, epoch)


@engines
def test_augmentation_gets_images_indices_and_epoch_and_its_result_is_used(photo_folder: Path, engine: str) -> None:
    plain = load(photo_folder, engine=engine, second=True)
    augment, other = Darken(), Darken()
    loader = load(photo_folder, engine=engine, second=True, augment=augment, augment_second=other)
    for each in (plain, loader):
        each.set_epoch(2)
    for number, (before, after) in enumerate(zip(plain, loader, strict=True)):
        factors = Darken.factors(before.indices, 2)
        assert torch.equal(after.images, before.images * factors)
        assert before.augmented is not None
        assert after.augmented is not None
        assert torch.equal(after.augmented, before.augmented * factors)
        assert torch.equal(after.labels, before.labels)
        for made, images in ((augment, before.images), (other, before.augmented)):
            given, indices, epoch = made.calls[number]
            assert torch.equal(given, images)
            assert given.dtype == torch.float32
            assert indices.dtype == torch.int64
            assert indices.device.type == "cpu"
            assert torch.equal(indices, before.indices)
            assert epoch == 2
    assert (loader.augmenter, loader.second_augmenter) == ("darken 0.5", "darken 0.5")
    assert (plain.augmenter, plain.second_augmenter) == ("none", "none")


def test_either_view_is_augmented_alone(photo_folder: Path) -> None:
    plain = list(load(photo_folder, second=True))
    first = list(load(photo_folder, second=True, augment=Darken()))
    second = list(load(photo_folder, second=True, augment_second=Darken()))
    assert not torch.equal(pixels(first), pixels(plain))
    assert torch.equal(pixels(first, "augmented"), pixels(plain, "augmented"))
    assert torch.equal(pixels(second), pixels(plain))
    assert not torch.equal(pixels(second, "augmented"), pixels(plain, "augmented"))


def test_an_augmentation_without_a_name_is_recorded_by_that_of_its_function(photo_folder: Path) -> None:
    def invert(images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        return 1 - images

    loader = load(photo_folder, augment=invert)
    assert loader.augmenter == "invert"
    assert torch.equal(pixels(list(loader)), 1 - pixels(list(load(photo_folder))))


@pytest.mark.parametrize("options", [{"second": True}, {"augment": Darken()}, {"stylized": "set"}])
def test_evaluation_has_none_of_it(photo_folder: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: for train=True; evaluation") as error:
        load(photo_folder, train=False, **options)
    assert "\n" not in str(error.value)


def test_a_second_augmentation_needs_second_images(photo_folder: Path) -> None:
    with pytest.raises(ValueError, match="augment_second changes the second images; give second=True too"):
        load(photo_folder, augment_second=Darken())


def test_an_augmentation_in_place_changes_its_own_images_alone(photo_folder: Path) -> None:
    def spoil(images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        images.zero_()
        return images

    before = pixels(list(load(photo_folder, second=True)), "augmented")
    spoilt = list(load(photo_folder, second=True, augment=spoil))
    assert not pixels(spoilt).any()
    assert torch.equal(pixels(spoilt, "augmented"), before)  # though both lie in one block of memory
