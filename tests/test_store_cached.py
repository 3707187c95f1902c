from __future__ import annotations

import time

import pytest

from unicross.store.cached import Cached


def test_a_value_is_read_again_when_it_is_old_or_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    now, values = 100.0, iter("abcd")
    monkeypatch.setattr(time, "monotonic", lambda: now)
    cached = Cached(lambda: next(values), max_age_s=2)
    assert cached.get() == "a"
    now += 2
    assert cached.get() == "a"
    now += 0.1
    assert cached.get() == "b"
    cached.put("written")
    assert cached.get() == "written"
    cached.expire()
    assert cached.get() == "c"


def test_a_failed_read_is_tried_again() -> None:
    answers = iter([OSError("gone"), "back"])

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return str(answer)

    cached = Cached(read, max_age_s=60)
    with pytest.raises(OSError, match="gone"):
        cached.get()
    assert cached.get() == "back"
