"""Views to weights: branch BatchNorm, objectives, the loop."""
