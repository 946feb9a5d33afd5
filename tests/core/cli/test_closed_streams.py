"""Standard streams that are closed, full or not read any more take no command's work away, and no file's place."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import graftkit
import pytest
from graftkit.cli.main import main
from graftkit.errors import FolderError


@pytest.mark.skipif(os.name != "posix", reason="a shell closes them")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    command = f"{sys.executable} -m graftkit schema {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{") or ">&-" in closed.replace("2>&-", "")


@pytest.mark.skipif(os.name != "posix", reason="a shell closes them")
def test_the_next_file_takes_no_closed_streams_number() -> None:
    code = (
        "import os, sys; from graftkit.cli.terminal import open_closed_streams; open_closed_streams();"
        "sys.exit(os.open(os.devnull, os.O_RDONLY) < 3 or None in (sys.stdin, sys.stdout, sys.stderr))"
    )
    assert subprocess.run(["sh", "-c", f"{sys.executable} -c '{code}' <&- >&- 2>&-"], timeout=60).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
@pytest.mark.parametrize("terminal", ["/dev/full", "a pipe that nobody reads"])
def test_progress_that_can_not_be_written_stops_nothing(terminal: str) -> None:
    code = (
        "import sys; from graftkit.cli.terminal import guarded_streams\n"
        "from graftkit.cli.progress import show_progress\n"
        "from graftkit.flow.events import StageStarted\n"
        "with guarded_streams(), show_progress() as tell:\n"
        "    tell(StageStarted('training')); print('of a library', file=sys.stderr, flush=True); print('result')\n"
    )
    if terminal == "/dev/full":
        unheard = os.open(terminal, os.O_WRONLY)
    else:
        reading, unheard = os.pipe()
        os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=unheard, text=True, timeout=60)
    os.close(unheard)
    assert done.stdout == "result\n"


def test_a_reader_that_has_heard_enough_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "graftkit", "schema"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", [0, 1])
def test_what_was_found_stays_found_where_nobody_reads_on(code: int) -> None:
    """A script that asks `toolkit plan --memory 8GB | head -3` whether a run fits goes by the code."""
    program = (
        "import click, sys; from graftkit.cli import main, schema; from graftkit.cli.terminal import ending_with\n"
        "def shown(**_):\n"
        f"    with ending_with({code}): click.echo('too large')\n"
        "schema.command.callback = shown; main.main(['schema'])"
    )
    reading, unread = os.pipe()
    os.close(reading)
    for stdout in (unread, subprocess.DEVNULL):
        done = subprocess.run([sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, timeout=60)
        assert (done.returncode, done.stderr) == (code, b"")
    os.close(unread)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_a_result_that_can_not_be_written_is_a_failure() -> None:
    command = f"{sys.executable} -m graftkit schema > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: standard output: can't be written: {os.strerror(errno.ENOSPC)}\n",
    )


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), EOFError("a file ends")])
def test_an_error_that_click_would_swallow_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftkit.cli.schema import command

    monkeypatch.setattr(command, "callback", raising(error))
    with pytest.raises(SystemExit) as ended:
        main(["schema"])
    assert ended.value.code == 1
    assert f"error: {type(error).__name__}: {error}" in capsys.readouterr().err


def raising(error: Exception) -> Callable[..., NoReturn]:
    def command(**_: object) -> NoReturn:
        raise error

    return command


@pytest.mark.skipif(os.name != "posix", reason="a folder in use can't be removed")
def test_a_current_folder_that_is_gone_is_one_error(tmp_path: Path) -> None:
    command = f"cd {tmp_path} && rmdir {tmp_path} && exec {sys.executable} -m graftkit schema"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "error: the current folder is not there any more\nChange into one that is, with cd.\n"


@pytest.mark.skipif(os.name != "posix", reason="a folder in use can't be removed")
def test_a_program_is_told_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(FolderError, match="the current folder is not there any more"):
        graftkit.plan({"model": "base", "data": {"train": "records.jsonl"}})


def test_memory_and_temporary_files_that_run_out_are_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftkit.cli.schema import command

    no_folder = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    for error, told in (
        (MemoryError(), "error: there is not enough memory for it\n"),
        (no_folder, "error: temporary files: can't be written: No usable temporary directory"),  # as dill is imported
    ):
        monkeypatch.setattr(command, "callback", raising(error))
        with pytest.raises(SystemExit) as ended:
            main(["schema"])
        said = capsys.readouterr().err
        assert ended.value.code == 1 and said.startswith(told) and "caught earlier" not in said
