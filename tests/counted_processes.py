"""Runs graftkit's command in a process that writes down what each step sends, as torch.distributed is asked for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "counts_of", "main"]

COMMAND = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import counted_processes as c; c.main()"
"""What `python -c` takes; the command's own arguments follow."""


def counts_of(folder: Path, rank: int) -> dict[str, Any]:
    """Returns what a process has written down.

    Returns:
        The bytes of each kind `before` the first step, and in the `steps`, each from its beginning to the next one's;
        of the `evaluations` the bytes of blocks received by the beginning of each pass and by the end.
    """
    found: dict[str, Any] = json.loads((folder / f"counts-{rank}.json").read_text())
    return found


def main() -> None:
    """Runs the command that the arguments say, counting."""
    from graftkit.cli.main import main as command
    from graftkit.flow.training import evaluate
    from graftkit.training import process_group
    from graftkit.training.loop import Trainer
    from torch import distributed

    rank, said = int(os.environ["RANK"]), Path(f"counts-{os.environ['RANK']}.json")
    now: dict[str, list[int]] = {}
    found: list[dict[str, Any]] = []
    evaluations: list[list[int]] = []

    def write() -> None:
        said.write_text(json.dumps({"rank": rank, "before": found[0], "steps": found[1:], "evaluations": evaluations}))

    def note(kind: str, size: int) -> None:
        now.setdefault(kind, []).append(size)

    def counted(original: Callable[..., Any], noted: Callable[..., None]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            noted(*arguments, **named)
            return original(*arguments, **named)

        return call

    def gathered_row(whole: Any, part: Any, **named: Any) -> None:
        note("agreements" if whole.dtype.itemsize == 8 else "blocks", whole.nbytes - part.nbytes)

    def gathered(part: Any, parts: Any, *_: Any, **named: Any) -> None:
        note("blocks", sum(each.nbytes for each in parts) - part.nbytes if parts else 0)

    def sent(tensor: Any, *_: Any, group: Any = None, **named: Any) -> None:
        note("spread" if group else "broadcast", tensor.nbytes)

    process_group._gather_row = counted(process_group._gather_row, gathered_row)
    distributed.gather = counted(distributed.gather, gathered)
    distributed.broadcast = counted(distributed.broadcast, sent)
    distributed.all_reduce = counted(distributed.all_reduce, lambda tensor, **named: note("sums", tensor.nbytes))
    take, score = Trainer._take_step, evaluate.holdout_loss

    def take_step(self: Any, *arguments: Any) -> Any:
        found.append({**now, "received": getattr(self._processes, "received", 0)})
        now.clear()
        write()
        return take(self, *arguments)

    def holdout_loss(*arguments: Any, processes: Any, **named: Any) -> Any:
        *first, poll = arguments
        marks: list[int] = []

        def on_pass(done: int, total: int) -> None:
            marks.append(getattr(processes, "received", 0))
            poll(done, total)

        result = score(*first, on_pass, processes=processes, **named)
        evaluations.append([*marks, getattr(processes, "received", 0)])
        if found:
            write()
        return result

    Trainer._take_step = take_step  # type: ignore[method-assign]
    evaluate.holdout_loss = holdout_loss
    command()
