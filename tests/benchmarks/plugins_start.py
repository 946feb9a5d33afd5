"""What twenty installed plugins cost at start: `toolkit --help` and `toolkit plugins`, with and without them.

    python tests/benchmarks/plugins_start.py [ROUNDS]

Each of the twenty offers a provider whose target imports torch; none of that may be paid before a recipe asks.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = """
from graftkit import Provider, hookimpl

@hookimpl
def graftkit_adapters():
    return [Provider(name="heavy-{n}", target="heavy_{n}_impl:Heavy", summary="imports torch when chosen")]
"""


def install(folder: Path, number: int) -> None:
    """Leaves a distribution in a folder as pip does."""
    (folder / f"heavy_{number}.py").write_text(SOURCE.format(n=number))
    (folder / f"heavy_{number}_impl.py").write_text("import torch\n\n\nclass Heavy: ...\n")
    info = folder / f"heavy_{number}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: heavy-{number}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[graftkit.plugins.v1]\nheavy-{number} = heavy_{number}\n")


def seconds(arguments: list[str], path: str) -> float:
    """Runs the command once."""
    command = [str(Path(sys.executable).parent / "toolkit"), *arguments]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": path})
    return time.perf_counter() - start


def main() -> None:
    """Prints medians, ratios and differences."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        for number in range(20):
            install(Path(folder), number)
        for arguments in (["--help"], ["plugins"]):
            pairs = [(seconds(arguments, ""), seconds(arguments, folder)) for _ in range(rounds + 2)][2:]
            bare, full = (statistics.median(side) for side in zip(*pairs, strict=True))
            print(
                f"toolkit {arguments[0]:8} without {bare:.3f} s   with twenty {full:.3f} s   "
                f"ratio {full / bare:.2f}   {full - bare:+.3f} s"
            )


if __name__ == "__main__":
    main()
