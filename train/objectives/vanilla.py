"""Plain training: the clean images and their labels, and nothing beside them."""

from dataclasses import dataclass

from .parts import Part

__all__ = ["Vanilla"]


@dataclass(frozen=True)
class Vanilla(Part):
    """The empty sum: `main` reads the clean images."""
