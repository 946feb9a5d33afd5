"""A run can be asked to stop from anywhere."""

from __future__ import annotations

import threading

import pytest
from graftkit import CancelToken
from graftkit.errors import Cancelled


def test_nobody_asked_nobody_stops() -> None:
    token = CancelToken()
    token.poll()
    assert not token.requested


def test_the_first_reason_stays() -> None:
    token = CancelToken()
    token.cancel("the user left")
    token.cancel("later")
    assert token.requested
    with pytest.raises(Cancelled, match=r"^the user left$") as caught:
        token.poll()
    assert caught.value.exit_code == 130


def test_another_thread_may_ask_without_a_reason() -> None:
    token = CancelToken()
    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()
    with pytest.raises(Cancelled, match="stopped by request"):
        token.poll()
