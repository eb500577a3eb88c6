"""Words for counts."""

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """`1 image`, `1,280 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
