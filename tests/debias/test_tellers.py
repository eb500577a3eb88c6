"""What is said while nothing else is to be seen."""

import time

import pytest

from debias.tellers import Checking

from .small_runs import Telling


def test_a_long_check_of_files_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    teller = Telling()
    check = Checking(teller)
    for done in range(1, 61):
        now[0] += 0.5
        check(done, 6000)
    assert teller.said == ["checked 20 of 6,000 files", "checked 40 of 6,000 files", "checked 60 of 6,000 files"]
