"""Images and labels to views: loaders, cue conflict, attacks."""

from .loader import Batch, ImageLoader, image_loader

__all__ = ["Batch", "ImageLoader", "image_loader"]
