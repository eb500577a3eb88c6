"""Detectors: networks, their losses per image, and what they are measured by."""
