"""Calls a function in a process of its own, which has loaded nothing yet.

python -m graftkit.testing.fresh package.module:function < arguments.json
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

__all__ = ["call_fresh"]


_SECONDS = 1800


def call_fresh(function: str, *arguments: Any, **environment: str) -> Any:
    """Calls "package.module:function" in a fresh process.

    Args:
        function: What to call; it returns JSON.
        arguments: Its arguments, as JSON.
        environment: Variables to set besides this process's.

    Raises:
        AssertionError: It failed; the message ends as the process's own did.
        subprocess.TimeoutExpired: It took longer than half an hour.
    """
    path = os.pathsep.join(folder for folder in sys.path if folder)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "graftkit.testing.fresh", function],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment},
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        end = "\n".join(done.stderr.strip().splitlines()[-12:])
        raise AssertionError(f"{function} failed in a fresh process:\n{end}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints what the function returned as the last line."""
    module, _, name = sys.argv[1].partition(":")
    result = getattr(importlib.import_module(module), name)(*json.load(sys.stdin))
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
