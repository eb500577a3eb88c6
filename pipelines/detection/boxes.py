"""The targets of a batch of a detector: for each image its boxes, in pixels of the image that the network sees."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Boxes:
    """Targets of B images; `len`, slices and `in_style_of` are what `View` asks of targets.

    Image i has n_i boxes: `boxes[i]` (n_i, 4) float32, left, top, right, bottom; `labels[i]` (n_i,) int64, from 0;
    `ignored[i]` (n_i,) bool, a crowd of COCO or a difficult one of VOC: it gives no loss and is not counted. `ids` (B,)
    int64, the samples' indices in the listing of the `DetectionSet`.
    """

    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    ids: Tensor
    ignored: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        counts = {len(self.boxes), len(self.labels), len(self.ids), len(self.ignored)}
        if len(counts) != 1:
            raise ValueError(
                f"{len(self.boxes)} images have boxes, {len(self.labels)} labels, {len(self.ids)} ids, "
                f"{len(self.ignored)} marks of what is ignored"
            )
        for boxes, labels, ignored in zip(self.boxes, self.labels, self.ignored, strict=True):
            if boxes.shape != (len(labels), 4) or ignored.shape != labels.shape or labels.ndim != 1:
                shapes = ", ".join(str(tuple(each.shape)) for each in (boxes, labels, ignored))
                raise ValueError(f"boxes must be (n, 4), labels and ignored (n,), got {shapes}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: slice) -> "Boxes":
        """Return the images `rows`, which is a slice."""
        if not isinstance(rows, slice):
            raise TypeError(f"Boxes are cut by a slice, got {rows!r}")
        return Boxes(self.boxes[rows], self.labels[rows], self.ids[rows], self.ignored[rows])

    def in_style_of(self, partners: Tensor, *, shape_weight: float) -> "Boxes":
        """Return these: a photo in the style of another keeps its boxes and their classes, whatever the weight."""
        return self

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Boxes":
        """Return the same on `device`; one copy for each kind of tensor, however many images there are."""
        if self.ids.device == torch.device(device):
            return self
        counts = [len(labels) for labels in self.labels]
        if not counts:
            return Boxes((), (), self.ids.to(device), ())
        boxes, labels, ignored = (
            torch.split(torch.cat(each).to(device, non_blocking=non_blocking), counts)
            for each in (self.boxes, self.labels, self.ignored)
        )
        return Boxes(boxes, labels, self.ids.to(device, non_blocking=non_blocking), ignored)
