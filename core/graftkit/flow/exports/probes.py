"""What an export is proved with: token sequences and the logits that the trained model gives them in training's way.

Sequences are whole examples, the longest among them, so that they cross every window that training crossed; they are
computed together in one pass where training packs them. An export that leaves a window out, or lets sequences see one
another, differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from graftkit.errors import FolderError
from graftkit.flow.exports.assets import ExpectedAssets
from graftkit.flow.exports.expert_choices import watched
from graftkit.flow.exports.same_experts import RouterChoices, choices_by_sequence
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.interfaces.architecture import OF_WHOLES, WITHOUT_LOGITS, Head, head_of
from graftkit.interfaces.block_memory import float32_by_block
from graftkit.interfaces.exporter import MergeBase, Probe
from graftkit.interfaces.forward import logits_at
from graftkit.model.head import head_scores
from graftkit.model.packing import forward_inputs
from graftkit.store.files import write_bytes
from graftkit.store.token_store import TYPE, TokenStore

__all__ = [
    "PROBES_FILE",
    "Comparison",
    "Probes",
    "allowed_difference",
    "compare",
    "make_probes",
    "reference_file",
    "run_probes",
]

PROBES_FILE = "probes.safetensors"
_ASK_THE_RUN = "An export is proved with what its run has kept beside it: put that file back, or run it again."
_SKETCH, _EXPERTS, _SCORES, _TYPES = "sketch.", "experts.", "scores.", "token_type_ids."
COUNT, SCORED = 4, 32
"""Sequences at most, and where a head gives each of them a few scores alone."""
KEPT = 8
"""Logits are kept at so many positions of each probe, evenly spread, the last one among them."""
LEAST = 512
"""Tokens that all probes may have together, however short the training was."""
_ROUNDING = 1e-5
"""How far logits may be off that another number of threads computes, as a share of the largest one."""
SHARE = 0.05
"""And the share of the tokens trained on, where that is more: what proving costs stays a small part of the run."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Token sequences and what the trained model makes of them.

    Attributes:
        ids: Token ids, one list a probe.
        logits: For each probe the logits at `positions`, `[kept, vocabulary]`, float32.
        positions: For each probe the positions whose logits are kept, ascending; its last ones when left out.
        tokenizer_fingerprint: Of the tokenizer that the ids are of.
        coverage: What the probes cover, for whoever reads the proof.
        assets: What an export must load besides its weights; None in what was written before that was compared.
        sketches: Those of the trained weights, where an exporter quantizes (`weight_sketch.py`).
        head: What the model has on its hidden states; the logits of a head on sequences are the scores of each probe,
            `[1, outputs]`, and those of a head on tokens the scores of these, `[kept, outputs]`.
        columns: How many columns of the logits an export must have: what lies beyond the tokenizer's ids is padding.
            0 in what was written before that was kept.
        token_type_ids: The type of each probe's tokens, `[tokens]`, where the model has embeddings of them; else none
            at all.
        experts: For each probe what each router chose (`same_experts.py`); empty for a model without one, and in what
            was written before that was kept.
    """

    ids: list[list[int]]
    logits: list[torch.Tensor]
    positions: list[list[int]] = field(default_factory=list)
    tokenizer_fingerprint: str = ""
    coverage: Mapping[str, int] = field(default_factory=dict)
    assets: ExpectedAssets | None = None
    sketches: Mapping[str, torch.Tensor] = field(default_factory=dict)
    head: Head = "language"
    columns: int = 0
    token_type_ids: list[list[int]] = field(default_factory=list)
    experts: Sequence[Sequence[RouterChoices]] = ()

    def __post_init__(self) -> None:
        if not self.positions:
            last = [
                list(range(len(ids) - len(logits), len(ids))) for ids, logits in zip(self.ids, self.logits, strict=True)
            ]
            object.__setattr__(self, "positions", last)

    @property
    def requested(self) -> list[Probe]:
        """The sequences and positions as an exporter is asked for them."""
        types = self.token_type_ids or [[]] * len(self.ids)
        return [Probe(*map(tuple, asked)) for asked in zip(self.ids, self.positions, types, strict=True)]

    def agrees_with(self, other: Probes) -> bool:
        """Tells whether other probes are of the same model, by logits that differ by rounding at most.

        Sketches are not compared: an export is compared with those of the probes that it is proved with.
        """
        logits = zip(self.logits, other.logits, strict=False)
        return self._asked() == other._asked() and all(
            (own - new).abs().max().item() <= _ROUNDING * own.abs().max().item() for own, new in logits
        )

    def _asked(self) -> tuple[Any, ...]:
        shapes = [logits.shape for logits in self.logits]
        asked = self.ids, self.positions, self.token_type_ids, self.tokenizer_fingerprint
        return shapes, *asked, self.coverage, self.assets, self.head

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        from safetensors.torch import save

        tensors = {f"ids.{n}": torch.tensor(ids) for n, ids in enumerate(self.ids)}
        tensors |= {f"logits.{n}": logits.contiguous() for n, logits in enumerate(self.logits)}
        tensors |= {f"positions.{n}": torch.tensor(positions) for n, positions in enumerate(self.positions)}
        tensors |= {f"{_TYPES}{n}": torch.tensor(types) for n, types in enumerate(self.token_type_ids)}
        for n, routers in enumerate(self.experts):
            tensors |= {f"{_EXPERTS}{n}.{m}": router.taken for m, router in enumerate(routers)}
            tensors |= {f"{_SCORES}{n}.{m}": router.scores for m, router in enumerate(routers)}
        tensors |= {f"{_SKETCH}{name}": sketch.contiguous() for name, sketch in self.sketches.items()}
        metadata = {"tokenizer_fingerprint": self.tokenizer_fingerprint}
        metadata |= {f"coverage.{name}": str(value) for name, value in self.coverage.items()}
        metadata |= {"assets": self.assets.to_json()} if self.assets else {}
        metadata |= {"head": self.head} if self.head != "language" else {}
        metadata |= {"columns": str(self.columns)} if self.columns else {}
        write_bytes(path, _in_order(save(tensors, metadata=metadata)))

    @classmethod
    def load(cls, path: Path) -> Probes:
        """Reads what `save` wrote.

        Raises:
            FolderError: The file is missing or damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise FolderError("there is no such file", where=str(path), hint=_ASK_THE_RUN)
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return cls._of(tensors, file.metadata() or {})
        except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:  # pydantic's are ValueErrors
            reason = " ".join(str(error).split())[:300]
            raise FolderError(f"it is damaged: {reason}", where=str(path), hint=_ASK_THE_RUN) from None

    @classmethod
    def _of(cls, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Probes:
        """Returns the probes that a file holds.

        Raises:
            KeyError, ValueError: The file holds something else.
        """
        numbers = range(sum(name.startswith("ids.") for name in tensors))
        ids, positions = ([tensors[f"{name}.{n}"] for n in numbers] for name in ("ids", "positions"))
        logits = [tensors[f"logits.{n}"] for n in numbers]
        types = [tensors[f"{_TYPES}{n}"] for n in numbers] if f"{_TYPES}0" in tensors else []
        heads: dict[str | None, Head] = {kind: kind for kind in get_args(Head)}
        head = heads.get(metadata.get("head"), "language")
        for found, at, values in zip(ids, positions, logits, strict=True):
            _check_probe(found, at, values, head)
        if any(of.shape != found.shape or of.dtype != torch.int64 for found, of in zip(ids, types, strict=False)):
            raise ValueError("a probe has not a type for each token")
        return cls(
            [found.tolist() for found in ids],
            logits,
            [at.tolist() for at in positions],
            metadata.get("tokenizer_fingerprint", ""),
            {
                name.removeprefix("coverage."): int(value)
                for name, value in metadata.items()
                if name.startswith("coverage.")
            },
            ExpectedAssets.from_json(metadata["assets"]) if "assets" in metadata else None,
            {name.removeprefix(_SKETCH): tensor for name, tensor in tensors.items() if name.startswith(_SKETCH)},
            head,
            int(metadata.get("columns", "0")),
            [of.tolist() for of in types],
            _experts(tensors, ids, positions),
        )


def _in_order(data: bytes) -> bytes:
    """Returns a safetensors file with its metadata in order: safetensors writes them in another one each time."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that numbers stay aligned
    return len(text).to_bytes(8, "little") + text + data[start:]


def _experts(
    tensors: Mapping[str, torch.Tensor], ids: Sequence[torch.Tensor], positions: Sequence[torch.Tensor]
) -> list[list[RouterChoices]]:
    """Returns what a probes' file has of each router for each probe.

    Raises:
        KeyError, ValueError: It is of other tokens, or some is missing.
    """
    count = sum(name.startswith(f"{_EXPERTS}0.") for name in tensors)
    found = []
    for n, (of, at) in enumerate(zip(ids, positions, strict=True) if count else ()):
        routers = [RouterChoices(tensors[f"{_EXPERTS}{n}.{m}"], tensors[f"{_SCORES}{n}.{m}"]) for m in range(count)]
        for router in routers:
            taken, scores = router.taken, router.scores
            typed = taken.dtype == torch.int32 and scores.dtype == torch.float32 and taken.ndim == scores.ndim == 3
            if not typed or len(taken) != len(of) or len(scores) != len(at) or taken.shape[1] != scores.shape[1]:
                raise ValueError("the experts of a probe are of another type or shape")
        found.append(routers)
    return found


def _check_probe(ids: torch.Tensor, positions: torch.Tensor, logits: torch.Tensor, head: Head) -> None:
    """Makes sure that a probe's parts fit together.

    Raises:
        ValueError: They don't.
    """
    whole = all(tensor.ndim == 1 and tensor.dtype == torch.int64 for tensor in (ids, positions))
    if not whole or logits.ndim != 2 or not logits.is_floating_point() or not len(ids):
        raise ValueError("a probe's ids, positions or logits are of another type or shape")
    inside = ((positions >= 0) & (positions < len(ids))).all()
    unknown = ids.min() < 0 or (head not in WITHOUT_LOGITS and ids.max() >= logits.shape[1])
    if len(positions) != len(logits) or not inside or unknown:
        raise ValueError("a probe's ids, positions and logits do not fit together")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far an export's logits are from the trained model's.

    Attributes:
        largest: The largest difference of a logit; infinite where shapes differ or a number is not finite.
        mean: The mean difference. Rounding is small nearly everywhere; a mean near the largest is a drift.
        top1: The share of positions at which both find the same token likeliest.
    """

    largest: float
    mean: float
    top1: float

    def within(self, allowed: float) -> bool:
        """Tells whether rounding explains it: no logit off by more than `allowed`, a third of that in the mean."""
        return self.largest <= allowed and self.mean <= allowed / 3


def reference_file(probes: Path, onto: MergeBase) -> Path:
    """Returns where it is kept what an export has to compute whose adapter was merged onto a base.

    Args:
        probes: The file of what the trained model computes, which is that of the base it was trained on.
        onto: The base.
    """
    return probes if onto == "dequantized" else probes.with_name(f"{probes.stem}-{onto}{probes.suffix}")


def make_probes(loaded: LoadedModel, corpus: Corpus, trained_tokens: int = 0) -> Probes:
    """Takes whole examples, holdout ones where there are any, and runs the trained model on them as training does.

    Args:
        loaded: The trained model.
        corpus: Where examples are taken from.
        trained_tokens: Tokens that training saw, by which the probes' size is bounded.
    """
    store = corpus.holdout if len(corpus.holdout) else corpus.train
    head = head_of(loaded.model.config)
    count = SCORED if head in OF_WHOLES else COUNT
    ids, types = _sequences(store, max(LEAST, int(SHARE * trained_tokens)), count)
    return run_probes(loaded, ids, max(store.longest_sequence, corpus.train.longest_sequence), types)


@torch.no_grad()
def run_probes(
    loaded: LoadedModel, sequences: Sequence[list[int]], longest_example: int, types: Sequence[list[int]] = ()
) -> Probes:
    """Runs a model on token sequences as training does.

    It runs in float32 whatever it was trained in, block by block, so that what is compared are the weights and not the
    rounding of activations.

    Args:
        loaded: The model.
        sequences: Token ids.
        longest_example: Tokens of the longest example that it was trained on, for whoever reads the proof.
        types: The type of each token of each sequence, where the model has embeddings of them.
    """
    # The shortest first: dynamic rope in transformers keeps the frequencies of the longest sequence that it has seen.
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    ids, types = [sequences[number] for number in order], [types[number] for number in order if types]
    network, head = loaded.model.network, head_of(loaded.model.config)
    positions = [[len(probe) - 1] if head in OF_WHOLES else _spread(len(probe)) for probe in ids]
    tensors = [torch.tensor(probe, device=loaded.device) for probe in ids]
    with float32_by_block(network):
        if head in OF_WHOLES:
            compute = partial(_scores, network, tensors, types)
        else:
            compute = partial(_logits, network, tensors, positions)
        logits, made = watched(partial(compute, loaded.packing.packed))
    coverage = {"sequences": len(ids), "longest": max(map(len, ids)), "longest_example": longest_example}
    width = logits[0].shape[1]
    columns = width if head in WITHOUT_LOGITS else min(width, loaded.model.tokenizer.vocab_size)
    return Probes(
        ids,
        logits,
        positions,
        loaded.model.tokenizer.fingerprint,
        coverage,
        head=head,
        columns=columns,
        token_type_ids=types,
        experts=choices_by_sequence(made, list(map(len, ids)), positions, packed=loaded.packing.packed),
    )


def _sequences(store: TokenStore, tokens: int, count: int = COUNT) -> tuple[list[list[int]], list[list[int]]]:
    """Returns the longest example and the first others, cut where they would have more than `tokens` together.

    Returns:
        The ids of each, and the types of its tokens; no types where the store has none.
    """
    longest = int(store.lengths.argmax())
    others = [number for number in range(min(count, len(store))) if number != longest]
    found: list[list[int]] = []
    types: list[list[int]] = []
    room = tokens
    for number in [longest, *others[: count - 1]]:
        longest_of = max(store[number].sequences, key=lambda sequence: len(sequence.ids))
        ids = longest_of.ids[:room].tolist()
        room -= len(ids)
        found += [ids] if ids else []
        types += [longest_of.by_token[TYPE][: len(ids)].tolist()] if ids and TYPE in longest_of.by_token else []
    return found, types


def _spread(length: int) -> list[int]:
    kept = min(KEPT, length)
    return sorted({(length - 1) * (n + 1) // kept for n in range(kept)} | {length - 1})


def _logits(
    network: Any, sequences: Sequence[torch.Tensor], positions: Sequence[Sequence[int]], packed: bool
) -> list[torch.Tensor]:
    """Returns the logits at the positions of each sequence; where training packs, all sequences share one pass."""
    if not packed and len(sequences) > 1:
        return [_logits(network, [ids], [at], packed)[0] for ids, at in zip(sequences, positions, strict=True)]
    starts = [sum(len(ids) for ids in sequences[:n]) for n in range(len(sequences))]
    every = [start + place for start, at in zip(starts, positions, strict=True) for place in at]
    inputs = forward_inputs(sequences, packed=packed)
    logits = logits_at(network, inputs, torch.tensor(every, device=sequences[0].device)).float().cpu()
    return list(torch.split(logits, [len(at) for at in positions]))


def _scores(
    network: Any, sequences: Sequence[torch.Tensor], types: Sequence[Sequence[int]], packed: bool
) -> list[torch.Tensor]:
    """Returns the scores that a head gives each sequence, `[1, outputs]`, or its vector, likewise."""
    if not packed and len(sequences) > 1:
        return [_scores(network, [ids], types[number : number + 1], packed)[0] for number, ids in enumerate(sequences)]
    of = torch.tensor([type for one in types for type in one], device=sequences[0].device) if types else None
    scored = head_scores(network, sequences, forward_inputs(sequences, packed=packed, token_type_ids=of))
    return [scores.unsqueeze(0).cpu() for scores in scored]


def allowed_difference(probes: Probes, share: float) -> float:
    """Returns how far a logit may be off: a share of the largest one, and 1e-4 at least."""
    return max(1e-4, share * max(logits.abs().max().item() for logits in probes.logits))


def compare(probes: Probes, found: Sequence[torch.Tensor], *, log_probabilities: bool = False) -> Comparison:
    """Compares an export's logits with those that are kept.

    Vocabulary rows that one side has beyond the other's are padding and are left out.

    Args:
        probes: What is expected.
        found: For each probe the logits at its positions, `[positions, vocabulary]`.
        log_probabilities: Whether they are log-probabilities, NaN for tokens of which none is given: those of the kept
            logits are compared with them. The numbers of vectors are never.
    """
    differences, agreeing = [], []
    for expected, logits in zip(probes.logits, found, strict=True):
        if len(logits) != len(expected) or logits.shape[1] < probes.columns:
            return Comparison(float("inf"), float("inf"), 0.0)
        kept = logits.float()
        width = min(expected.shape[1], kept.shape[1])
        expected, kept = expected[:, :width], kept[:, :width]
        given = torch.ones_like(kept, dtype=torch.bool)
        if log_probabilities and probes.head != "embedding":
            expected, given = expected.log_softmax(1), ~kept.isnan()
        if not given.any(1).all():
            return Comparison(float("inf"), float("inf"), 0.0)
        differences.append((expected - kept).abs()[given])
        agreeing.append(expected.argmax(1) == kept.masked_fill(~given, -torch.inf).argmax(1))
    every = torch.cat(differences)
    largest, mean = every.max().item(), every.mean().item()
    if largest != largest:
        return Comparison(float("inf"), float("inf"), 0.0)
    return Comparison(largest, mean, torch.cat(agreeing).float().mean().item())
