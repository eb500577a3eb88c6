"""Images and labels to views: loaders, cue conflict, attacks."""

from .adversarial_views import AdversarialViews
from .attacks import PGD
from .cue_conflict import CueConflict
from .loading.loader import Batch, ImageLoader, image_loader
from .style_bank import StyleBank
from .view import View

__all__ = ["PGD", "AdversarialViews", "Batch", "CueConflict", "ImageLoader", "StyleBank", "View", "image_loader"]
