"""A small image folder."""

from pathlib import Path

import pytest
from pictures import picture


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """12 JPEGs of 12 sizes in 3 classes, one a folder deeper."""
    root = tmp_path / "photos"
    for index in range(12):
        folder = root / ("ant", "bee", "cat")[index % 3] / ("deep" if index == 7 else "")
        folder.mkdir(parents=True, exist_ok=True)
        image = picture(60 + 7 * index, 110 - 5 * index, seed=index)
        image.save(folder / f"{index:02d}.jpg", quality=92)
    return root
