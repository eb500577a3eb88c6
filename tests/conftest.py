"""What all tests share: no test touches the user's cache, and some use data that only a developer's machine has."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache folder for the whole run, so that the embedded data are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("DEBIAS_CACHE", raising=False)  # it would go before
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors on busy cores: threads would spend the time waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real photos beside the checkout; tests that ask for it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no data at {SHARED_DATA}")
    return SHARED_DATA
