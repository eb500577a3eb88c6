"""Detectors and segmenters: many answers an image, so that a measure is one of all images together."""

from .tasks import DENSE, DenseTask

__all__ = ["DENSE", "DenseTask"]
