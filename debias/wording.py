"""Words for counts, classes and metrics."""

from collections import Counter
from collections.abc import Iterable

__all__ = ["counted", "said_metric", "short_name", "short_names"]

_METRICS = {"top1": "top-1", "miou": "mIoU", "ap50": "AP50", "pixel_accuracy": "pixel accuracy"}


def counted(count: int, noun: str) -> str:
    """`1 image`, `1,280 images`, `2 classes`, `3 boxes`."""
    return f"{count:,} {noun if count == 1 else noun + ('es' if noun.endswith(('s', 'x')) else 's')}"


def said_metric(metric: str) -> str:
    """What people call a score of metrics.jsonl: "top1" is "top-1"."""
    return _METRICS.get(metric, metric)


def short_name(name: str) -> str:
    """A class folder's name for people: "n01440764_tench" is "tench"."""
    wnid, mark, words = name.partition("_")
    return (words if mark and wnid[:1] == "n" and wnid[1:].isdigit() else name).replace("_", " ")


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each name and its `short_name`, or itself where another has the same: ImageNet has two of "crane"."""
    every = set(names)
    shown = Counter(map(short_name, every))
    return {name: short_name(name) if shown[short_name(name)] == 1 else name for name in every}
