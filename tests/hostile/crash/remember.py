"""Tries once what runs do from equal states: many a state of a disk leads to what another one leads to.

At four points a run's files and what it holds in memory are looked at: where it begins to compute, when it has its
tokens, before it exports, and before its exports are proved. From there, what becomes of it depends on the files below
the folder that holds it, on what its manifests say, on the tokens and the adapter in memory and on the generator's
state, nothing else. Where all of those are equal to those of a run that was tried to its end, this one is stopped: it
has come to the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from graftkit.flow import chain as chain_module
from graftkit.flow import run as run_module
from graftkit.flow.exports import export as export_module
from graftkit.flow.folders.metrics import METRICS
from graftkit.flow.folders.own_files import LOCK
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.state.context import RunContext
from graftkit.report.run_manifest import MANIFEST
from graftkit.store.temporaries import TEMPORARY
from hostile.crash.tiny_run import digest_of

__all__ = ["Ends"]

_READ = ("tokenizer", "model", "data", "metrics", "graftkit", "providers")
"""What a run that goes on reads of its former manifest once it computes, beside the facts of its metrics' file."""

_NOT_READ = ("error", "notices", "resumed")
"""What is written into a manifest, and not read of it by any run."""


class _Known(BaseException):
    """How a run would end that is stopped here; no handler of the run's own catches it for good."""

    def __init__(self, end: str) -> None:
        super().__init__(end)
        self.end = end


class Ends:
    """How runs ended, by what they went on from.

    Attributes:
        repeated: How many attempts ended as one before them, and were stopped.
        met: What the run of the latest attempt went on from at each point.
        stopped: Whether that one was stopped.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self._known: dict[str, str] = {}
        self.met: list[str] = []
        self.stopped = False

    def of(self, root: Path, attempt: Callable[[], str]) -> str:
        """Returns how an attempt ends; one that is in the middle of a former one's way is not tried to its end.

        Args:
            root: The folder that its run lies below, which holds nothing else.
            attempt: Runs once, and says how that ended.
        """
        self.met, self.stopped = [], False
        with self._watching(root):
            try:
                end = attempt()
            except _Known as known:
                self.stopped = True
                self.repeated += 1
                end = known.end
        self.learn(end, self.met)
        return end

    def learn(self, end: str, met: list[str], repeated: int | None = None) -> None:
        """Takes in how an attempt ended, in another process, too.

        Args:
            end: How.
            met: What its run went on from at each point.
            repeated: How many attempts were stopped, by that process's count.
        """
        self._known |= dict.fromkeys(met, end)
        self.repeated = self.repeated if repeated is None else repeated

    @contextmanager
    def _watching(self, root: Path) -> Iterator[None]:
        def look(run: RunContext, point: str, *held: bytes) -> None:
            key = _key(run, root, point, held)
            if key in self._known:
                raise _Known(self._known[key])
            self.met.append(key)

        flow, build, export, prove = (
            run_module.run_stages,
            chain_module.build_corpus,
            export_module.export_all,
            export_module.prove_exports,
        )

        def flow_watched(run: RunContext) -> None:
            look(run, "beginning")
            flow(run)

        def build_watched(run: RunContext) -> Corpus:
            corpus = build(run)
            look(run, "tokens", *_held(corpus))
            return corpus

        def export_watched(run: RunContext, loaded: LoadedModel, corpus: Corpus, exporters: Any) -> None:
            weights = loaded.model.trainable_parameters()
            adapter = [name.encode() + weight.detach().numpy().tobytes() for name, weight in weights.items()]
            look(run, "exports", *_held(corpus), *adapter, torch.get_rng_state().numpy().tobytes())
            export(run, loaded, corpus, exporters)

        def prove_watched(run: RunContext) -> None:
            look(run, "proofs")
            prove(run)

        with (
            mock.patch.object(run_module, "run_stages", flow_watched),
            mock.patch.object(chain_module, "build_corpus", build_watched),
            mock.patch.object(export_module, "export_all", export_watched),
            mock.patch.object(export_module, "prove_exports", prove_watched),
        ):
            yield


def _held(corpus: Corpus) -> list[bytes]:
    arrays = [array.tobytes() for store in (corpus.train, corpus.holdout) for array in store.arrays().values()]
    return [*arrays, repr((corpus.answers, corpus.stop)).encode()]


def _key(run: RunContext, root: Path, point: str, held: Sequence[bytes]) -> str:
    """Says what a run goes on from.

    Args:
        run: The run.
        root: The folder that all runs lie below.
        point: Where it is.
        held: What it holds in memory.
    """
    before = run.resumed.manifest.to_json() if run.resumed and point in ("beginning", "tokens") else None
    own = (run.folder / MANIFEST, run.folder / LOCK)  # the manifest is the run's own by now, which is looked at
    tree = {_plain(path.relative_to(root)): _content(path) for path in root.rglob("*") if path not in own}
    waiting = sorted(root.rglob(".*.replaced"), key=lambda path: path.stat().st_mtime_ns)  # the latest is put back
    said = [
        point,
        [hashlib.sha256(data).hexdigest() for data in held],
        run.folder.name,
        run.plan.today.isoformat(),
        run.files.others,
        _said(run.manifest.to_json() | {"written": []}),
        before and [{key: before.get(key) for key in _READ}, before.get("artifacts", {}).get(METRICS)],
        sorted(tree.items()),
        [path.name for path in waiting] if len(waiting) > 1 else len(waiting),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _plain(path: Path) -> str:
    """Returns a path without what is random in temporary names."""
    parts = (f".{m[1]}.{m[2]}" if (m := TEMPORARY.fullmatch(part)) else part for part in path.parts)
    return "/".join(re.sub(r"\.graftkit-[a-z0-9_]{8}\.replaced$", ".replaced", part) for part in parts)


def _content(path: Path) -> str:
    """Returns a digest of a file, or what it says without how long something took."""
    if not path.is_file():
        return ""
    if path.suffix not in (".json", ".jsonl"):
        return digest_of(path)
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        said = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return repr(text)
    return json.dumps([_said(said) if path.name == MANIFEST else _untimed(said), text.endswith("\n")])


def _said(manifest: Any) -> Any:
    """Returns what a run may read of a manifest."""
    return _untimed({key: value for key, value in manifest.items() if key not in _NOT_READ})


def _untimed(said: Any) -> Any:
    if isinstance(said, dict):
        return {key: _untimed(value) for key, value in said.items() if key != "seconds"}
    return [_untimed(value) for value in said] if isinstance(said, list) else said
