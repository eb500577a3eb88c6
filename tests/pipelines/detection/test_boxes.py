"""The targets: slices, devices, and what they say of themselves when they do not fit together."""

import pytest
import torch

from debias.pipelines.detection import Boxes


def targets(counts: tuple[int, ...] = (2, 0, 3)) -> Boxes:
    draw = torch.Generator().manual_seed(0)
    return Boxes(
        tuple(torch.rand(n, 4, generator=draw) for n in counts),
        tuple(torch.arange(n) for n in counts),
        torch.arange(len(counts)) + 10,
        tuple(torch.arange(n) % 2 == 1 for n in counts),
    )


def test_a_slice_is_the_same_images() -> None:
    whole = targets()
    part = whole[1:]
    assert len(whole) == 3
    assert len(part) == 2
    assert part.ids.tolist() == [11, 12]
    assert part.boxes[1] is whole.boxes[2]
    assert part.labels[1] is whole.labels[2]
    assert part.ignored[1] is whole.ignored[2]
    assert len(whole[3:]) == 0


def test_a_number_is_no_slice() -> None:
    with pytest.raises(TypeError, match="cut by a slice"):
        targets()[0]  # type: ignore[index]


def test_a_style_changes_no_box() -> None:
    whole = targets()
    assert whole.in_style_of(torch.tensor([2, 0, 1]), shape_weight=0.8) is whole


@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), ()])
def test_a_device_takes_everything(counts: tuple[int, ...]) -> None:
    whole = targets(counts)
    moved = whole.to("meta")
    assert len(moved) == len(whole)
    for name in ("boxes", "labels", "ignored"):
        for ours, theirs in zip(getattr(whole, name), getattr(moved, name), strict=True):
            assert (theirs.device.type, theirs.shape, theirs.dtype) == ("meta", ours.shape, ours.dtype)
    again = whole.to("cpu")
    assert all(torch.equal(a, b) for a, b in zip(whole.boxes, again.boxes, strict=True))
    assert torch.equal(again.ids, whole.ids)


def test_parts_that_do_not_fit_are_refused() -> None:
    whole = targets()
    with pytest.raises(ValueError, match="3 images have boxes, 2 labels"):
        Boxes(whole.boxes, whole.labels[:2], whole.ids, whole.ignored)
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\)"):
        Boxes(whole.boxes, whole.labels[::-1], whole.ids, whole.ignored)
