"""A command that was started without its standard streams runs, and no file takes their place."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


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
