"""A page with everything on it."""

from pathlib import Path

import pytest

from . import folders as made


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return made.example(tmp_path_factory.mktemp("example"))
