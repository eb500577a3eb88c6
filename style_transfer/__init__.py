"""Images to images: AdaIN style transfer."""

from .images import Images

__all__ = ["Images"]
