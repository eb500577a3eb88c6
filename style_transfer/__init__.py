"""Images to images: AdaIN style transfer."""

from .adain import Statistics, adain
from .images import Images
from .stylizer import Stylizer

__all__ = ["Images", "Statistics", "Stylizer", "adain"]
