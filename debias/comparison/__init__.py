"""Objectives side by side on one's own images, each with the same training time: `debias compare`."""
