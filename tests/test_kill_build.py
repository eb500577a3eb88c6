"""`build-stylized` killed with SIGKILL at random moments and run again: the bytes of an undisturbed run."""

import hashlib
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pictures import picture
from stylizers import save_untrained

IMAGES = 600
BATCH = 16
SHARD = 60
KILLS = 10

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kill")
    save_untrained(root / "stylizer.safetensors")
    for index in range(IMAGES):
        folder = root / "photos" / f"class{index % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(150 + index % 40, 180, seed=index).save(folder / f"{index}.jpg")
    return root


def command(source: Path, out: Path, format: str) -> list[str]:
    build = [sys.executable, "-m", "debias", "build-stylized", str(source / "photos"), str(out)]
    options = ["--stylizer", str(source / "stylizer.safetensors"), "--size", "160", "--format", format]
    return [*build, *options, "--shard-size", str(SHARD), "--batch-size", str(BATCH)]


def tree(out: Path) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def images_there(out: Path, format: str) -> int:
    if format == "folder":
        return sum(not path.name.startswith(".") for path in out.glob("class*/*.jpg"))
    finished = [path for path in out.glob("shard-*.tar") if not path.name.startswith(".")]
    return sum(path.read_bytes().count(b"ustar") // 2 for path in finished)  # an image and its labels


def run(arguments: list[str]) -> tuple[int, int]:
    """Images found done and images made, from what the command prints."""
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) found done", printed)
    made = re.search(r"(\d+) stylised", printed)
    assert made is not None, printed
    return int(found.group(1)) if found else 0, int(made.group(1))


@pytest.mark.parametrize("format", ["folder", "webdataset"])
def test_killed_and_run_again_gives_the_same_tree(source: Path, tmp_path: Path, format: str) -> None:
    whole = tmp_path / "whole"
    assert run(command(source, whole, format)) == (0, IMAGES)
    expected = tree(whole)
    draw = random.Random(format)
    piece = BATCH if format == "folder" else SHARD
    for number in range(KILLS):
        out = tmp_path / str(number)
        there = _killed(command(source, out, format), out, format, draw.randrange(IMAGES - piece))
        found, made = run(command(source, out, format))
        print(f"{format} {number}: killed at {there} images, then {found} found and {made} made")
        assert found + made == IMAGES
        assert made <= IMAGES - there + 2 * piece  # shards may differ by a few images in size
        assert tree(out) == expected


def _killed(arguments: list[str], out: Path, format: str, at: int) -> int:
    """Start the build, kill it when at least `at` images are there and some milliseconds more have passed."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and images_there(out, format) < at:
        time.sleep(0.005)
    time.sleep(random.Random(at).uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return images_there(out, format)
