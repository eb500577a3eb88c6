"""Whether a run is measured on what it learned by heart."""

from pathlib import Path

from debias.pipelines.loading.listing import list_images
from debias.train.run_folder import read_settings

from .labels import clean_images

__all__ = ["trained_on"]


def trained_on(run: str | Path, data: str) -> bool:
    """Whether the clean images of `data` are those that the run in the folder `run` was trained on.

    By names, labels and sizes, so a copy counts too. False where nothing is known: for a network that is no run, and
    where its training images are no longer at their place.
    """
    try:
        trained = read_settings(Path(run))["data"]
        return list_images(str(trained), "train").digest == clean_images(data, "clean").digest
    except (ValueError, OSError, KeyError):
        return False
