"""The tables of ImageNet are the published ones."""

import hashlib
import json
from pathlib import Path

import pytest

from debias.evaluation import imagenet

# Of the indices joined by commas: both lists as their authors and timm publish them.
DIGESTS = {
    "imagenet_a": "973e8c3e530bf5dbd49999d046e74084ba5184ab98036b42b111d8dcdecf1015",
    "imagenet_r": "a1d9a9ace3098120f5db861d97049116efe80683f4e48c65a62f9bd30fc3366a",
}
SIZES = {
    "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6,
    "chair": 4, "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8,
}  # fmt: skip


@pytest.mark.parametrize("name", DIGESTS)
def test_the_masks_are_the_published_ones(name: str) -> None:
    indices = getattr(imagenet, name)()
    assert hashlib.sha256(",".join(map(str, indices)).encode()).hexdigest() == DIGESTS[name]


def test_the_1000_classes_are_sorted_wordnet_ids() -> None:
    ids = imagenet.wnids()
    assert len(ids) == len(set(ids)) == 1000
    assert list(ids) == sorted(ids)
    assert (ids[0], ids[999]) == ("n01440764", "n15075141")


def test_the_16_categories_are_those_of_the_paper() -> None:
    found = imagenet.categories16()
    assert {name: len(indices) for name, indices in found.items()} == SIZES
    indices = [index for group in found.values() for index in group]
    assert len(indices) == len(set(indices)) == 207


def test_alexnet_errors_have_the_mean_of_the_papers_table() -> None:
    errors = imagenet.alexnet_mean_errors()
    assert len(errors) == 15
    assert sum(errors.values()) / 15 == pytest.approx(0.788993, abs=1e-6)


def test_every_table_names_its_source() -> None:
    tables = {"wnids", "categories16", "imagenet_a", "imagenet_r", "alexnet_mean_errors"}
    assert set(imagenet.sources()) == tables


def test_the_tables_equal_those_they_were_taken_from(shared_data: Path) -> None:
    for name, table in json.loads((shared_data / "imagenet_meta.json").read_text()).items():
        found = getattr(imagenet, name)()
        plain = (
            {key: list(value) if isinstance(value, tuple) else value for key, value in dict(found).items()}
            if isinstance(table, dict)
            else list(found)
        )
        assert plain == table
