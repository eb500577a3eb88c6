"""Images are read as the loader's evaluation reads them, by each network's own preprocessing."""

from pathlib import Path

import pytest
import torch
from pictures import picture

from debias.explain.pictures import BATCH, open_pictures, read_pictures
from debias.pipelines import image_loader
from debias.train.weights_file import InputSpec


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(size=16),
        InputSpec(size=24, crop=1.0, interpolation="bicubic"),
        InputSpec(size=40, crop=0.5, mean=(0, 0, 0)),
    ],
)
def test_they_are_those_of_the_loader(tmp_path: Path, spec: InputSpec) -> None:
    count = BATCH + 3
    (tmp_path / "data" / "a").mkdir(parents=True)
    paths = [tmp_path / "data" / "a" / f"{index:03d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        picture(30 + index, 70 - 2 * index, index).save(path)
    batches = list(read_pictures(open_pictures(paths), spec))
    assert [len(batch) for batch in batches] == [BATCH, 3]
    loader = image_loader(
        tmp_path / "data",
        size=spec.size,
        batch_size=count,
        train=False,
        crop=spec.crop,
        engine="torchvision",
        interpolation=spec.interpolation,
    )
    assert torch.equal(torch.cat(batches), next(iter(loader)).images)


def test_none_are_none() -> None:
    assert list(read_pictures(open_pictures([]), InputSpec(size=8))) == []


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    picture(20, 20).save(good)
    bad.write_text("no image")
    with pytest.raises(ValueError, match=r"bad\.png: not an image"):
        open_pictures([good, bad])
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        open_pictures([tmp_path / "gone.png"])
