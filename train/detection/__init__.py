"""Detectors: networks, their losses per image, and what they are measured by."""

from .detector import Detections, Detector
from .models import create_detector, initialise_detector, load_detector

__all__ = ["Detections", "Detector", "create_detector", "initialise_detector", "load_detector"]
