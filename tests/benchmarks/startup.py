"""What it costs to start: `toolkit --help` and `toolkit plugins` against a Python that imports click and pluggy.

python tests/benchmarks/startup.py [ROUNDS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from timing import interleaved, report

BASE = "python -c 'import click, pluggy'"


def main() -> None:
    """Prints medians and ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    toolkit = str(Path(sys.executable).parent / "toolkit")
    commands = {
        BASE: [sys.executable, "-c", "import click, pluggy"],
        "toolkit --help": [toolkit, "--help"],
        "toolkit plugins": [toolkit, "plugins"],
    }
    interleaved(commands, 2)
    print(report(interleaved(commands, rounds), BASE))


if __name__ == "__main__":
    main()
