from collections import Counter

import pytest

from debias.pipelines.stylized_set.partners import external_styles, next_in_ring, next_of_other_class, ring_order

PATHS = [f"class{i % 4}/{i}.jpg" for i in range(60)]


def partners_by_path(paths: list[str], seed: int = 0, copy: int = 0) -> dict[str, str]:
    order = ring_order(paths, seed, copy)
    following = next_in_ring(len(order))
    return {paths[order[place]]: paths[order[following[place]]] for place in range(len(order))}


def test_partners_are_one_ring_without_an_image_of_its_own() -> None:
    partners = partners_by_path(PATHS)
    seen, here = set(), PATHS[0]
    while here not in seen:
        seen.add(here)
        here = partners[here]
    assert seen == set(PATHS)


def test_partners_depend_on_seed_and_copy_and_not_on_the_order_of_listing() -> None:
    assert partners_by_path(PATHS) == partners_by_path(PATHS[::-1])
    assert partners_by_path(PATHS) != partners_by_path(PATHS, seed=1) != partners_by_path(PATHS, copy=1)


def test_an_added_image_changes_one_other_partner() -> None:
    before, after = partners_by_path(PATHS), partners_by_path([*PATHS, "class1/new.jpg"])
    assert sum(before[path] != after[path] for path in PATHS) == 1


def test_a_single_image_is_refused() -> None:
    with pytest.raises(ValueError, match="--styles"):
        next_in_ring(1)


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1, 2, 2, 0], [0, 1, 1, 1]])
def test_the_next_of_another_class_is_found_by_walking(labels: list[int]) -> None:
    count = len(labels)
    for place, partner in enumerate(next_of_other_class(labels)):
        walk = next(step for step in range(1, count) if labels[(place + step) % count] != labels[place])
        assert partner == (place + walk) % count


def test_one_class_has_no_other_class() -> None:
    with pytest.raises(ValueError, match="--partners any"):
        next_of_other_class([2, 2, 2])


def test_external_styles_are_shared_out_and_an_added_one_moves_few_images() -> None:
    paths, styles = [f"{i}.jpg" for i in range(2000)], [f"style{i}.jpg" for i in range(10)]
    chosen = external_styles(paths, styles, 0, 0)
    loads = Counter(chosen)
    assert len(loads) == 10
    assert max(loads.values()) < 2 * min(loads.values())
    grown = external_styles(paths, [*styles, "style10.jpg"], 0, 0)
    moved = [new for old, new in zip(chosen, grown, strict=True) if old != new]
    assert set(moved) == {10}
    assert len(moved) < 2 * len(paths) / 11
