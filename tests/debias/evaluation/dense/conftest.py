"""Corruptions that take no time, and few draws of the bootstrap."""

import numpy as np
import pytest

from debias.evaluation import corrupting
from debias.evaluation.dense import corrupted, detection_measures


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def darker(image: np.ndarray, corruption: str, severity: int, key: str) -> np.ndarray:
        return (image * (1 - 0.18 * severity)).astype(np.uint8) if corruption == "fog" else image

    monkeypatch.setattr(corrupting, "corrupted", darker)
    monkeypatch.setattr(corrupted, "library_version", lambda: "of the tests")
    monkeypatch.setattr(detection_measures, "DRAWS", 3)
