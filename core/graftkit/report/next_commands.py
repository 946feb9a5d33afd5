"""The commands that come next after a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from graftkit.report.run_manifest import RunManifest
from graftkit.visible import one_line

__all__ = ["next_commands"]

_PAIR = '{"text": "Hello", "text_pair": "Hi!"}'
"""What a classifier of pairs of texts is asked where no record's is offered."""


def next_commands(folder: Path, manifest: RunManifest) -> list[str]:
    """Returns commands to type next.

    The prompt is a record's: one that would not be shown as it is, or that looks like an option, is not offered.

    Args:
        folder: The run's folder, as it is named in the commands.
        manifest: What the run says.
    """
    prompt = manifest.data.example_prompt if manifest.data else None
    usual = _PAIR if manifest.head is not None and manifest.head.pairs else "Hello"
    offered = prompt if prompt and prompt == one_line(prompt) and not prompt.startswith("-") else usual
    asked = manifest.head is None or manifest.head.kind != "masked"  # of a masked model no text is known with a mask
    asked = asked and not _named_by_class(manifest)
    commands = [f"toolkit generate {_argument(folder)} {shlex.quote(offered)}"] if asked else []
    if manifest.put_off:
        return [*commands, f"toolkit verify {_argument(folder)}"]
    if manifest.exports:
        export = folder / "exports" / next(reversed(manifest.exports))  # the newest, which may be all that is new
        return [*commands, f"toolkit verify {_argument(export)}"]
    return [*commands, f"toolkit export {_argument(folder)} --to merged"]


def _named_by_class(manifest: RunManifest) -> bool:
    """Tells whether a run uses a class that its recipe names and no plugin offers: no manifest makes it again."""
    made = (manifest.providers.get(kind) for kind in ("model_source", "tokenizer", "quantizer", "adapter"))
    return any(isinstance(facts, Mapping) and facts.get("distribution") == "" for facts in made)


def _argument(path: Path) -> str:
    """Returns a path as a shell's argument on one line, which is no option."""
    text = one_line(str(path))
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
