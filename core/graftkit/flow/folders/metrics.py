"""`metrics.jsonl`, a line a step and one an evaluation; a damaged line is named when it is read."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Any, overload

from graftkit.errors import FolderError
from graftkit.host.lifecycle import StepInfo
from graftkit.interfaces.regular_file import open_regular
from graftkit.visible import first_of

__all__ = [
    "METRICS",
    "Evaluation",
    "Metrics",
    "StepLines",
    "kept_evaluations",
    "missing_evaluations",
    "missing_steps",
    "read_metrics",
    "to_line",
]

METRICS = "metrics.jsonl"

_LARGEST = 1e100
"""Numbers of a line are smaller: every float has room for those, and no step has others."""

_LARGEST_WHOLE = 1 << 63
"""The same of numbers that count."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What holdout examples said of the model while it was trained; its line is told from a step's by `holdout_loss`.

    Attributes:
        step: The step that it was measured after.
        holdout_loss: Mean negative log-likelihood of a token in the loss, in nats.
        examples: How many holdout examples that is of.
        seconds: How long it took.
    """

    step: int
    holdout_loss: float
    examples: int
    seconds: float


_OF_STEP = tuple(field.name for field in fields(StepInfo) if field.name not in ("steps", "metrics"))
_WHOLE = frozenset({"step", "tokens", "loss_tokens"})
_OF_EVALUATION = tuple(field.name for field in fields(Evaluation))

_LONGEST = 1 << 20
"""Bytes of a line at most: no run writes a longer one."""


class StepLines(Sequence[Mapping[str, Any]]):
    """The lines of steps, in their order, of which each number takes eight bytes: of a million steps, 56 MB.

    Args:
        lines: What each says: the fields of a step, and whatever else it has; of two of the same step the first counts.
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self._columns = {key: array("q" if key in _WHOLE else "d") for key in _OF_STEP}
        self._beside: dict[int, Mapping[str, Any]] = {}
        for number, line in enumerate(lines):
            for key, column in self._columns.items():
                column.append(line[key])
            if len(line) > len(self._columns):
                self._beside[number] = {key: value for key, value in line.items() if key not in self._columns}
        if any(later <= former for former, later in pairwise(self._columns["step"])):
            self._sort()

    def _sort(self) -> None:
        steps, places = self._columns["step"], dict[int, int]()
        for place, step in enumerate(steps):
            places.setdefault(step, place)
        order = [places[step] for step in sorted(places)]
        self._columns = {key: array(each.typecode, map(each.__getitem__, order)) for key, each in self._columns.items()}
        self._beside = {new: self._beside[old] for new, old in enumerate(order) if old in self._beside}

    def __len__(self) -> int:
        return len(self._columns["step"])

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for place, values in enumerate(zip(*self._columns.values(), strict=True)):
            yield {**dict(zip(_OF_STEP, values, strict=True)), **self._beside.get(place, {})}

    @overload
    def __getitem__(self, place: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        return {**{key: column[at] for key, column in self._columns.items()}, **self._beside.get(at, {})}


@dataclass(frozen=True, slots=True)
class Metrics:
    """The lines that can be read, each kind in the order of its steps.

    Attributes:
        steps: What was said of each step.
        evaluations: What was measured on holdout examples after some of them.
    """

    steps: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Evaluation] = ()

    @property
    def holdout_losses(self) -> dict[int, float]:
        """The holdout loss after each step that was evaluated."""
        return {line.step: line.holdout_loss for line in self.evaluations}

    def with_evaluations(self, kept: Iterable[Evaluation]) -> Metrics:
        """Returns these lines, and of the steps that have none, the evaluations that a checkpoint has kept."""
        found = {line.step: line for line in [*kept, *self.evaluations]}
        return Metrics(self.steps, [found[step] for step in sorted(found)])

    def until(self, step: int) -> Metrics:
        """Returns what was said up to a step."""
        steps = [line for line in self.steps if line["step"] <= step]
        return Metrics(steps, [line for line in self.evaluations if line.step <= step])

    def text(self) -> str:
        """Returns the lines as the file holds them: each evaluation after its step."""
        lines = sorted([*self.steps, *map(to_line, self.evaluations)], key=lambda line: line["step"])
        return "".join(json.dumps(line) + "\n" for line in lines)


def to_line(said: StepInfo | Evaluation) -> dict[str, Any]:
    """Returns what the line of a step, or of an evaluation, says."""
    if isinstance(said, Evaluation):
        return asdict(said)
    line = {key: getattr(said, key) for key in _OF_STEP}
    return line | {"metrics": dict(said.metrics)} if said.metrics else line


def read_metrics(path: Path, length: int | None = None) -> Metrics:
    """Returns the lines that can be read; none where there is no file.

    A line that is no JSON, lacks a number, has one that is not finite or has the step of an earlier one of its kind is
    left out, as is a last line that a crash has cut off: `missing_steps` says of which steps there is none.

    Args:
        path: The file.
        length: How many bytes of it are read; None for all.

    Raises:
        FolderError: The system refuses to read it, or it is no regular file.
    """
    evaluations: dict[int, Evaluation] = {}

    def steps(file: IO[bytes]) -> Iterator[Mapping[str, Any]]:
        for facts in filter(None, map(_read, _whole_lines(file, length))):
            if "holdout_loss" in facts:
                evaluations.setdefault(facts["step"], Evaluation(**{key: facts[key] for key in _OF_EVALUATION}))
            else:
                yield facts

    try:
        with open_regular(path) as file:
            found = StepLines(steps(file))
    except FileNotFoundError:
        return Metrics()
    except OSError as error:
        hint = "Move it out of the way: the run goes on without it."
        raise FolderError(f"can't be read: {error.strerror}", where=str(path), hint=hint) from error
    return Metrics(found, [evaluations[step] for step in sorted(evaluations)])


def _whole_lines(file: IO[bytes], length: int | None) -> Iterator[bytes]:
    """Yields each line of a file's first bytes that ends and is no longer than a run's may be."""
    begins, left = True, length
    while line := file.readline(_LONGEST if left is None else min(left, _LONGEST)):
        left = None if left is None else left - len(line)
        ends = line.endswith(b"\n")
        if begins and ends:
            yield line
        begins = ends


def kept_evaluations(facts: Iterable[Any]) -> list[Evaluation]:
    """Returns the evaluations that a checkpoint has kept, which says nothing of how long they took.

    Args:
        facts: For each, its fields but the seconds; whatever is no evaluation is left out.
    """
    found = (_checked({**one, "seconds": 0.0}) for one in facts if isinstance(one, Mapping) and "holdout_loss" in one)
    return [Evaluation(**{key: one[key] for key in _OF_EVALUATION}) for one in found if one is not None]


def missing_evaluations(known: Metrics, kept: Iterable[Evaluation]) -> str:
    """Says after which steps an evaluation has no line that can be read, but is kept; nothing where there is none."""
    missing = sorted({line.step for line in kept} - known.holdout_losses.keys())
    shown = first_of(map(str, missing), 5)
    said = f"{METRICS} is damaged: it has no line that can be read of the evaluation after step {shown}"
    return f"{said}; the checkpoint has it" if missing else ""


def missing_steps(lines: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Says which of the first steps have no line that can be read; nothing where all have.

    Args:
        lines: The lines of steps.
        steps: How many steps have been taken.
    """
    known = {line["step"] for line in lines}
    missing = list(islice((str(step) for step in range(1, steps + 1) if step not in known), 6))
    if not missing:
        return ""
    shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
    return f"{METRICS} is damaged: it has no line that can be read of step {shown}"


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        return _checked(json.loads(line.decode()))
    except (ValueError, RecursionError):
        return None


def _checked(facts: Any) -> dict[str, Any] | None:
    try:
        for key in _OF_EVALUATION if "holdout_loss" in facts else _OF_STEP:
            kind = type(facts[key])
            if not (kind is int and abs(facts[key]) < _LARGEST_WHOLE if key in _WHOLE else kind in (int, float)):
                return None
        for value in facts.values():
            if isinstance(value, int | float) and not abs(value) < _LARGEST:
                return None
    except (AttributeError, KeyError, TypeError):
        return None
    else:
        return facts  # type: ignore[no-any-return]
