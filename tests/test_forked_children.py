"""A fork of the process that has imported everything is to a test what a fresh process is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import graftkit
import pytest
from forked_children import ForkingPopen

HOME = str(Path(graftkit.__file__).parents[1])

SAYS = """
import json, os, sys
print(json.dumps({
    "arguments": sys.argv, "name": __name__, "folder": os.getcwd(), "asked": sys.stdin.read(), "path": sys.path,
    "variable": os.environ.get("A_VARIABLE"), "leads": os.getsid(0) == os.getpid(), "parent": os.getppid(),
    "torch": "torch" in sys.modules, "graftkit": getattr(sys.modules.get("graftkit"), "__file__", None),
}))
print("to errors", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture(autouse=True)
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", ForkingPopen)


def told(*command: str, **options: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *command, "-x", "1"], input="a line", capture_output=True, text=True, check=False, **options
    )
    assert (done.returncode, done.stderr) == (3, "to errors\n")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_a_fork_has_what_it_was_given_and_is_this_processes_child(tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text(SAYS)
    environment = {**os.environ, "A_VARIABLE": "é", "PYTHONPATH": os.pathsep.join([str(tmp_path), HOME])}
    for options, first in (["-P", "-m", "says"], str(tmp_path)), (["-c", SAYS], ""):
        facts = told(*options, cwd=tmp_path, env=environment, start_new_session=True)
        fresh = told(*options, cwd=tmp_path, env={**environment, "PYTHONHASHSEED": "1"}, start_new_session=True)
        assert facts.pop("torch") and not fresh.pop("torch")
        assert facts["path"][0] == first
        assert facts.pop("graftkit") == graftkit.__file__ and fresh.pop("graftkit") is None
        assert facts == fresh


def test_a_fork_forgets_the_graftkit_that_it_would_not_import(tmp_path: Path) -> None:
    (tmp_path / "graftkit").mkdir()
    (tmp_path / "graftkit" / "__init__.py").write_text("other = True")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = "import sys; print([*filter(lambda name: 'graftkit.' in name, sys.modules)]); import graftkit as it"
    code += "; print(it.other)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nTrue\n"


@pytest.mark.parametrize(
    "change",
    [{"PYTHONHASHSEED": "5"}, {"HF_HOME": "elsewhere"}, {"TRANSFORMERS_OFFLINE": "0"}, {"OMP_NUM_THREADS": "7"}],
)
def test_what_is_read_at_the_start_needs_a_fresh_process(change: dict[str, str]) -> None:
    assert not told("-c", SAYS, env={**os.environ, **change})["torch"]


def test_another_interpreter_and_its_options_are_no_fork(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    code = "import sys; print('torch' in sys.modules)"
    for command in ([str(other), "-c", code], [sys.executable, "-X", "utf8", "-c", code]):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_fork_ignores_what_this_process_ignores_and_nothing_else(number: signal.Signals) -> None:
    code = f"import signal; print(signal.getsignal({number:d}))"
    for handler in (signal.SIG_IGN, signal.SIG_DFL):
        before = signal.signal(number, handler)
        try:
            said = [
                subprocess.run(
                    [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True
                ).stdout
                for options in ([], ["-X", "utf8"])
            ]
        finally:
            signal.signal(number, before)
        assert said[0].split(" at ")[0] == said[1].split(" at ")[0]


def test_a_fork_ends_as_a_process_does() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run([sys.executable, "-c", "1 / 0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    "end",
    [
        "print('done')",
        "sys.exit(3)",
        "sys.exit('why')",
        "raise KeyboardInterrupt",
        "atexit.register(print, 'at exit')",
        "threading.Thread(target=lambda: (time.sleep(0.2), print('from a thread'))).start()",
        "os.close(1); print('lost')",
    ],
)
def test_a_fork_ends_as_a_fresh_process_does(end: str) -> None:
    """With the same code, and once its threads and what it registered for its end have said what they say."""
    code = f"import atexit, os, sys, threading, time; {end}"
    forked, fresh = (
        subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
        for options in ([], ["-X", "utf8"])
    )
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]
