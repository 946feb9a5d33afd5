"""A process that is forked while another thread is busy waits for nobody who is not there."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from graftkit.host import time_limit as time_limits
from graftkit.host.guard import guarded
from graftkit.host.imported import imported
from graftkit.host.records import PluginRecord
from graftkit.host.time_limit import time_limit
from graftkit.interfaces import python_source
from graftkit.interfaces.fork_lock import ForkLock
from graftkit.interfaces.python_source import parse_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")

LOCK = ForkLock()


def parse(until: threading.Event) -> None:
    with python_source._PARSING:
        until.wait()


def take(until: threading.Event) -> None:
    with LOCK, LOCK:
        until.wait()


def call_a_plugin(until: threading.Event) -> None:
    with time_limit("plugin 'slow'", "its import", 0.1, "", end=True), guarded(PluginRecord("slow", "", "", ""), "it"):
        until.wait()


def import_slowly(until: threading.Event) -> None:
    sys.until = until  # type: ignore[attr-defined]
    importlib.import_module("half_imported")


def parsed() -> bool:
    return parse_python("a = 1").body != []


def taken() -> bool:
    with LOCK, LOCK:
        return LOCK._depth == 2


def left_alone() -> bool:
    with time_limit("plugin 'own'", "its import", 60, ""):  # whose thread looks at all that is running
        time.sleep(0.4)
        return sys.stdout is not sys.stderr and [each.who for each in time_limits._running] == ["plugin 'own'"]


def passed_over() -> bool:
    return imported("half_imported") is None


@pytest.mark.parametrize(
    ("busy", "works"), [(parse, parsed), (take, taken), (call_a_plugin, left_alone), (import_slowly, passed_over)]
)
def test_what_another_thread_held_is_free_in_a_forked_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: Callable[[threading.Event], None], works: Callable[[], bool]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_imported.py").write_text("import sys\nsys.until.wait()\n")
    until = threading.Event()
    thread = threading.Thread(target=busy, args=(until,))
    thread.start()
    time.sleep(0.05)
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        try:
            os._exit(0 if works() else 1)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(2)
    until.set()
    thread.join()
    sys.modules.pop("half_imported", None)
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_process_goes_on_with_what_its_thread_holds() -> None:
    with LOCK, LOCK:
        child = os.fork()
        if child == 0:
            os._exit(0 if LOCK._depth == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert LOCK._depth == 0


@pytest.mark.parametrize(
    ("leave", "code"),
    [(None, 1), (ValueError("x"), 1), (SystemExit(3), 3), (SystemExit("x"), 1), (SystemExit(), 0)],
)
def test_a_process_that_a_plugin_forks_ends_where_it_would_come_back(
    capfd: pytest.CaptureFixture[str], leave: BaseException | None, code: int
) -> None:
    """Both would write the run's folder."""
    child = 0
    with guarded(PluginRecord("twin", "acme", "1.5", "acme"), "its hook graftkit_step_finished"):
        child = os.fork()
        if child == 0 and leave:
            raise leave
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    told = "plugin 'twin' of acme 1.5: its hook graftkit_step_finished forked this process, which came back"
    assert told in capfd.readouterr().err
