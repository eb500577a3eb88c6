"""What a process pays for memory that it freed before: pages that the system fills with zeros."""

import subprocess
import sys

import pytest

from debias.train.memory import keep_freed_memory

FAULTS = """
import resource, torch
from debias.train.memory import keep_freed_memory

def faults():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1 << 24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone gives memory back so early")
def test_freed_memory_is_there_for_the_next_step():
    """How many pages the fourth of four tensors has to get, before and after."""
    run = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    before, kept, after = run.stdout.split()
    if kept != "True":
        pytest.skip("no glibc")
    assert int(after) < 10 < int(before)  # 16384 pages of 4 KB, where the system does not hand out larger ones


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
