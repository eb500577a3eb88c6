"""What a process pays for memory that it freed before: pages that the system fills with zeros."""

import subprocess
import sys

import pytest

from debias.train.memory import keep_freed_memory

FAULTS = """
import resource, sys, torch
from debias.train.memory import keep_freed_memory
kept = sys.argv[1] == "kept" and keep_freed_memory()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)  # 64 MB
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(which):
    """Whether memory is kept, and how many pages the fourth of four tensors has to get."""
    command = [sys.executable, "-c", FAULTS, which]
    kept, count = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone gives memory back so early")
def test_freed_memory_is_there_for_the_next_step():
    kept, count = faults("kept")
    if not kept:
        pytest.skip("no glibc")
    # 16384 pages of 4 KB, where the system does not hand out larger ones.
    assert count < 10 < faults("given back")[1]


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
