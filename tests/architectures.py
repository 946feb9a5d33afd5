"""What is known of each architecture: `python tests/architectures.py` writes the table of docs/architectures.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError
from graftkit.model.model_plan import check_base_model
from graftkit.model.packing import Packing, choose_packing
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_models.huggingface import HuggingFaceSource

PAGE = Path(__file__).parent.parent / "docs" / "architectures.md"
WINDOW = 16
HEAD = "| architecture | sequences | adapted by `all-linear` | why one by one |\n|---|---|---|---|\n"


def settings(name: str) -> dict[str, Any]:
    """Returns the architecture's tiny configuration, with a window shorter than sequences where it knows windows."""
    from transformers import CONFIG_MAPPING

    found = dict(ARCHITECTURES[name])
    if "text_config" in found:
        return found
    window = getattr(CONFIG_MAPPING[found["model_type"]](), "sliding_window", None)
    return found | ({"sliding_window": WINDOW, "use_sliding_window": True} if isinstance(window, int) else {})


def row(name: str, folder: Path, packing: Packing | None = None) -> str:
    """Returns the architecture's line of the table; `packing` where it is known already."""
    files = HuggingFaceSource().open(str(folder))
    try:
        ends = sorted({layer.path.rpartition(".")[2] for layer in check_base_model(files)})
        packing = packing or choose_packing(files.config, name)
    except ModelError as error:
        return f"| {name} | refused | | {error.message} |\n"
    how = "packed" if packing.packed else "one by one"
    reason = packing.reason.partition(": logits")[0].replace("|", "/")
    return f"| {name} | {how} | {', '.join(ends)} | {reason} |\n"


def main() -> None:
    """Writes the table in the place of the one that is there."""
    text = PAGE.read_text(encoding="utf-8")
    lines = []
    for name in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(name, tiny_model_folder(Path(folder), **settings(name))))
            sys.stderr.write(lines[-1])
    start = text.index(HEAD)
    PAGE.write_text(text[:start] + HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
