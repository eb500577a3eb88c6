"""Photometric augmentation, drawn for each image: kornia on the batch on a GPU, torchvision on uint8 on a CPU."""

from .augmenter import PHOTOMETRIC, Augmenter, Photometric, draw_erasing

__all__ = ["PHOTOMETRIC", "Augmenter", "Photometric", "draw_erasing"]
