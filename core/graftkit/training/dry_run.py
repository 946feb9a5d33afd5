"""A run's loading, training and answering on tensors without contents: what each holds in memory at its peak."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.architecture import WITHOUT_LOGITS, head_of
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.counts import count_weights
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import PLAIN, TensorInfo
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.activation_checkpointing import checkpoint_blocks
from graftkit.model.adapt import adapt
from graftkit.model.attention import DeferredMask, native_attention
from graftkit.model.context import context_length
from graftkit.model.grow import grow
from graftkit.model.head import head_parameters
from graftkit.model.linear import FrozenLinear
from graftkit.model.live_memory import MemoryMeter, imagined, really
from graftkit.model.load import Loader
from graftkit.model.model_plan import ModelPlan, plan_base_model
from graftkit.model.outer_layers import OuterLayer, hidden_matrices, untie
from graftkit.model.packing import Packing, attention_as, use_packing
from graftkit.model.twin import build_twin
from graftkit.model.whole import put_whole, whole_parameters
from graftkit.recipe.schema.training import TrainingSection
from graftkit.training import head_loss, loss
from graftkit.training.batch import PackedBatch
from graftkit.training.block_uses import BlockUses, BlockWatch
from graftkit.training.head_loss import HeadPass
from graftkit.training.loss import Candidates, ScoredPass, TokenLoss
from graftkit.training.optimizer_kinds import empty_state

__all__ = ["AnswerSizes", "DryRun", "Foreseen", "PassSizes", "Peak", "dry_run", "dry_teacher"]

_FILE = "file"
_MOST_SEQUENCES = 64
"""Sequences of a pass that are computed: each takes some milliseconds a layer, whatever its length."""
_TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""Types of tensors as a source gives them; float32 where none is named."""


@dataclass(frozen=True, slots=True)
class PassSizes:
    """The largest forward and backward pass of a training.

    Attributes:
        lengths: Tokens of each sequence in it.
        learnt: How many of those tokens are in the loss.
        different: How many numbers of tokens the passes of the training have.
    """

    lengths: tuple[int, ...]
    learnt: int
    different: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of all its sequences."""
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class AnswerSizes:
    """How many answers are generated side by side, after how long prompts, and how long they are at most.

    Attributes:
        answers: How many.
        prompt: Tokens of a prompt.
        new_tokens: Tokens of an answer.
        copies: How many of them have the same prompt, which is computed once.
    """

    answers: int
    prompt: int
    new_tokens: int
    copies: int = 1


@dataclass(frozen=True, slots=True)
class DryRun:
    """What is computed without contents.

    Attributes:
        config: The base model's config.json.
        tensors: Its tensors, as `BaseModelFiles` tells them.
        reference: Its reference, for errors.
        quantizer: Stores the linear layers' weights.
        quantizer_config: Its recipe fields.
        adapter: Puts something trainable on them.
        targets: On which of them.
        dtype: What the model computes in.
        packing: How sequences share a pass.
        largest: The largest pass.
        training: The recipe's training section, which names the optimizer.
        answers: The answers of an evaluation; None where none are generated.
        sampled: The answers that are sampled before each step; None where none are.
        keeps_start: Whether what is trained is kept as it is at the start, and scores each step's answers, too.
        temperature: What logits are divided by before tokens are scored.
        change: What becomes of the vocabulary; None where it stays.
        device: The type of the device that it is for: elsewhere than on the CPU more logits are made at a time.
        checkpointed: Whether blocks are computed again for their gradient.
        saved: Whole parameters that are trained beside the adapter, by name.
        ties_saved: As for `put_whole`.
        unties: Whether output layer and embedding, which the base model ties, become two matrices. Where rows of the
            vocabulary change, each then has rows of its own; an adapter on one of them unties them by itself.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    reference: str
    quantizer: Quantizer
    quantizer_config: ProviderConfig
    adapter: Adapter
    targets: Sequence[str]
    dtype: torch.dtype
    packing: Packing
    largest: PassSizes
    training: TrainingSection
    answers: AnswerSizes | None = None
    sampled: AnswerSizes | None = None
    keeps_start: bool = False
    temperature: float = 1.0
    change: VocabularyChange | None = None
    device: str = "cpu"
    checkpointed: bool = False
    saved: Sequence[str] = ()
    ties_saved: bool = False
    unties: bool = False


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that a stage holds at once.

    Attributes:
        stage: The run's stage.
        parts: The bytes of each part then: `weights`, `quantization`, `other_weights`, `adapter`, `head` (on
            sequences, which is trained fully), `gradients`, `optimizer`, `start` (a copy of what is trained, as it was
            at the start), `activations`, `logits`, `cache`, and what else is `working` memory.
        products: How many products of 16-bit matrices, no two of them of the same shapes, have been made by its end.
        mapped: Those of these bytes that are in blocks of more than 32 MiB, by part; see `MemoryMeter`.
    """

    stage: str
    parts: Mapping[str, int]
    mapped: Mapping[str, int]
    products: int = 0

    @property
    def total(self) -> int:
        """The bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a run was found to hold and to use.

    Attributes:
        peaks: Those of "base model", "adapter", "evaluation before", "training" and "evaluation after".
        blocks: What several processes would exchange.
    """

    peaks: Sequence[Peak]
    blocks: BlockUses


def dry_run(asked: DryRun) -> Foreseen:
    """Computes loading, the largest pass of training and an answer without contents, by the code that computes them.

    Raises:
        Exception: Code of the model, the quantizer or the adapter can't be computed so.
    """
    with _metered(asked) as (planned, meter, watch, plain_head):
        network: Any = Loader(planned, _Stores(asked), torch.device("cpu")).load()
        watch.ends("base model")
        _name_weights(meter, network)
        use_packing(network, asked.packing)
        rows = _grown(asked, network)
        put_whole(network, frozenset(asked.saved), tied=asked.ties_saved)
        adapted = adapt(network, asked.adapter, asked.targets, seed=0)
        if asked.checkpointed:
            checkpoint_blocks(network)
        trained = [p for weight in adapted.values() for p in weight.trainable_parameters().values()]
        trained += whole_parameters(network, asked.saved).values()
        head = list(head_parameters(network, planned.head).values())
        for parameter in head:
            parameter.requires_grad_(True)
        watch.ends("adapter")
        _name_weights(meter, network)
        meter.relabel([*trained, *rows], "adapter")
        meter.relabel(head, "head")
        scores = head_of(asked.config) in WITHOUT_LOGITS
        counted = _MeteredHead(network, asked, meter) if scores else _MeteredLoss(network, asked, meter, plain_head)
        blocks = BlockWatch(network)
        network.eval()
        with blocks.noting() as forward:
            counted.evaluate(_batch(asked.largest, asked.config))
        with blocks.noting():
            if asked.answers:
                _answer(asked.answers, network, meter)
        watch.ends("evaluation before")
        hidden = {*map(id, hidden_matrices(network, adapted).values())}
        with _training_state(meter, asked.training, [*trained, *head], rows, hidden, keeps_start=asked.keeps_start):
            network.train()
            watch.begins()
            with blocks.noting() as learn:
                counted.backward(_batch(asked.largest, asked.config), 1.0)
            if asked.sampled:
                network.eval()
                _answer(asked.sampled, network, meter)
            watch.ends("training")
        uses = BlockUses(blocks.sizes, blocks.frozen, learn, forward, [p.numel() for p in (*trained, *head, *rows)])
    before = next(peak for peak in watch.peaks if peak.stage == "evaluation before")
    after = Peak("evaluation after", before.parts, before.mapped, watch.peaks[-1].products)
    return Foreseen([*watch.peaks, after], uses)


def dry_teacher(asked: DryRun) -> Peak:
    """Computes loading a teacher and the largest pass, forward alone, without contents, by the code that computes them.

    Args:
        asked: The teacher; its adapter, training and answers have no part.

    Raises:
        Exception: As for `dry_run`.
    """
    with _metered(asked) as (planned, meter, watch, plain_head):
        network: Any = Loader(planned, _Stores(asked), torch.device("cpu")).load()
        _name_weights(meter, network)
        use_packing(network, asked.packing)
        network.eval()
        _MeteredLoss(network, asked, meter, plain_head).evaluate(_batch(asked.largest, asked.config))
        watch.ends("teacher")
    return watch.peaks[0]


@contextmanager
def _metered(asked: DryRun) -> Iterator[tuple[ModelPlan, MemoryMeter, _Watch, bool]]:
    """Has tensors without contents be counted for a while.

    Yields:
        The model, the meter, what notes its peaks, and whether logits are made in pieces.
    """
    planned = plan_base_model(_Headers(asked), asked.dtype)
    config = json.dumps(asked.config, sort_keys=True, default=str)
    plain_head = _has_plain_head(config, count_weights(asked.tensors))
    _fill_caches(asked.quantizer, asked.dtype)
    experts = max((stack.experts for stack in planned.stacks), default=0)
    with (
        imagined({_FILE}, lambda mask: -(-mask.numel() // experts) if experts else mask.numel()) as meter,
        _with_contents(DeferredMask, "tiles"),
        _with_contents(loss, "forward_inputs"),
        _with_contents(head_loss, "forward_inputs"),
    ):
        _Headers.meter = meter
        yield planned, meter, _Watch(meter, mixture=experts > 0), plain_head


def _fill_caches(quantizer: Quantizer, dtype: torch.dtype) -> None:
    """Has a quantizer make the tables that it keeps for good before they would be made without contents."""
    with suppress(Exception), torch.no_grad():  # what is wrong with it shows where it is used
        layer = LayerInfo("layers.0.small", "linear", 256, 256)
        quantizer.quantize(torch.eye(256, dtype=dtype), layer).dequantize(dtype)


class _Watch:
    """Notes the peak of one stage after the other.

    Args:
        meter: The meter.
        mixture: Whether there are experts, each of which multiplies another number of tokens.
    """

    def __init__(self, meter: MemoryMeter, *, mixture: bool) -> None:
        self._meter, self._mixture = meter, mixture
        self.peaks: list[Peak] = []

    def begins(self) -> None:
        """Says that what follows is the stage; what was before it is none's."""
        self._meter.forget_peak()

    def ends(self, stage: str) -> None:
        """Says that a stage is over."""
        made = self._meter.products
        products = made.total() if self._mixture else len(made)
        self.peaks.append(Peak(stage, self._meter.at_peak, self._meter.mapped_at_peak, products))
        self._meter.forget_peak()


@contextmanager
def _training_state(
    meter: MemoryMeter,
    training: TrainingSection,
    trained: Sequence[nn.Parameter],
    rows: Sequence[nn.Parameter],
    hidden: Collection[int],
    *,
    keeps_start: bool,
) -> Iterator[None]:
    """Gives every parameter a gradient and moments for a while, as each but the first pass of a training finds them.

    Where it is compared with the start there is a copy of each, too. `hidden` has the `id` of those that are matrices
    of hidden layers.
    """
    with meter.labelled("gradients"):
        for parameter in (*trained, *rows):
            parameter.grad = torch.zeros_like(parameter)
    with meter.labelled("optimizer"):  # of new rows there is one moment (`RowAdam`)
        moments = [
            tensor
            for parameter in trained
            for tensor in empty_state(training, parameter, hidden=id(parameter) in hidden)
        ]
        moments += [torch.zeros_like(parameter) for parameter in rows]
    with meter.labelled("start"):
        start = [torch.empty_like(parameter) for parameter in (*trained, *rows)] if keeps_start else []
    yield
    del moments, start
    for parameter in (*trained, *rows):
        parameter.grad = None


def _answer(sizes: AnswerSizes, network: Any, meter: MemoryMeter) -> None:
    """Computes what generation does: the prompts in one pass, then a token after the longest answers.

    Of the second no more is computed than the keys and values that are kept then: a layer's are made anew with each
    token, beside the old ones, and the logits of a token are small.
    """
    name = "cache_params" if "cache_params" in signature(network.forward).parameters else "past_key_values"

    def kept_after(tokens: int, sequences: int) -> list[int]:
        with really():
            ids = torch.zeros(sequences, tokens, dtype=torch.long)
            places = torch.arange(tokens).expand(sequences, -1)
        with torch.no_grad(), attention_as(network, native_attention(network)), meter.labelled("activations"):
            found = network(input_ids=ids, position_ids=places, use_cache=True, logits_to_keep=1)
        layers = getattr(getattr(found, name), "layers", ())
        return [t.nbytes for layer in layers for t in vars(layer).values() if isinstance(t, torch.Tensor)]

    kept_after(sizes.prompt, max(1, sizes.answers // sizes.copies))
    prompts = meter.peak, meter.at_peak
    kept = kept_after(sizes.prompt + sizes.new_tokens - 1, sizes.answers)
    meter.forget_peak()
    later = dict(meter.at_peak) | {"cache": sum(kept), "activations": 2 * max(kept, default=0)}
    total = sum(later.values())
    meter.peak, meter.at_peak = max(prompts, (total, later), key=lambda found: found[0])


class _MeteredLoss(TokenLoss):
    """The loss of training, what it makes labelled by what it is for."""

    def __init__(self, network: nn.Module, asked: DryRun, meter: MemoryMeter, plain_head: bool) -> None:
        super().__init__(network, packed=asked.packing.packed, temperature=asked.temperature)
        self._plain_head = plain_head
        self._meter = meter
        self._device = asked.device

    def evaluate(self, batch: PackedBatch) -> None:
        """Computes a pass of an evaluation."""
        self.score(batch, learn=False)

    def score(self, batch: PackedBatch, *, learn: bool, candidates: Candidates | None = None) -> ScoredPass:
        with self._meter.labelled("activations"):
            return super().score(batch, learn=learn, candidates=candidates)

    def backward(self, batch: PackedBatch, scale: float) -> torch.Tensor:
        if self._plain_head:
            return super().backward(batch, scale)
        head, stack = self._network.get_output_embeddings(), ExitStack()
        hook = head.register_forward_pre_hook(lambda *_: stack.enter_context(self._meter.labelled("logits")))
        try:
            with stack, self._meter.labelled("activations"):
                return super().backward(batch, scale)
        finally:
            hook.remove()

    def _hidden(self, batch: PackedBatch) -> torch.Tensor:
        with self._meter.labelled("activations"):
            return super()._hidden(batch)

    def _logits_at_once(self, device: torch.device) -> int:
        return super()._logits_at_once(torch.device(self._device))

    def _pieces(self, hidden: torch.Tensor, batch: PackedBatch, by_token: torch.Tensor | None = None) -> Iterator[Any]:
        with self._meter.labelled("logits"):
            yield from super()._pieces(hidden, batch, by_token)


class _MeteredHead(HeadPass):
    """A pass through a head that gives scores, what it makes labelled by what it is for."""

    def __init__(self, network: nn.Module, asked: DryRun, meter: MemoryMeter) -> None:
        super().__init__(network, packed=asked.packing.packed)
        self._meter = meter

    def evaluate(self, batch: PackedBatch) -> None:
        """Computes a pass of an evaluation."""
        with self._meter.labelled("activations"):
            self.score(batch)

    def backward(self, batch: PackedBatch, scale: float) -> torch.Tensor:
        with self._meter.labelled("activations"):
            return super().backward(batch, scale)


def _batch(largest: PassSizes, config: Mapping[str, Any]) -> PackedBatch:
    """Returns a pass of such examples; of many short ones as many tokens in fewer, whose attention takes no less.

    None of its sequences is longer than the model's context, however many of them an example has.
    """
    lengths = largest.lengths
    while len(lengths) > _MOST_SEQUENCES:
        lengths = tuple(sum(lengths[at : at + 2]) for at in range(0, len(lengths), 2))
    most = context_length(config) or max(lengths)
    lengths = tuple(min(most, length - at) for length in lengths for at in range(0, length, most))
    with really():
        ids = tuple(torch.zeros(length, dtype=torch.long) for length in lengths)
        places = torch.arange(min(largest.learnt, largest.tokens))
        return PackedBatch(ids, places, torch.zeros_like(places), None, float(len(places)), {}, {})


@cache
def _has_plain_head(config: str, most_weights: int) -> bool:
    """Tells by a small model of the architecture whether logits can be made in pieces; see `TokenLoss`."""
    try:
        twin = build_twin(json.loads(config), most_weights=most_weights)
        ids = torch.arange(3, 8)
        return TokenLoss(twin, packed=False)._in_pieces(PackedBatch((ids,), ids, ids, None, 1.0, {}, {}))
    except Exception:
        return False


def _grown(asked: DryRun, network: Any) -> list[nn.Parameter]:
    if asked.change is None:
        return []
    if asked.unties:
        untie(network)
    new = len(asked.change.ids)
    made = grow(network, asked.change, lambda weight, role: torch.zeros(new, weight.shape[1]), asked.reference)
    return list(made.parameters().values())


def _name_weights(meter: MemoryMeter, network: nn.Module) -> None:
    """Tells the codes of quantized weights, what belongs to them, and all other weights apart.

    The largest tensor of a frozen weight has its numbers or their codes; the others are scales and the like.
    """
    meter.relabel([*network.parameters(), *network.buffers()], "other_weights")
    for module in network.modules():
        if isinstance(module, FrozenLinear) and not isinstance(module, OuterLayer):
            tensors = sorted(module.frozen.parameters(), key=lambda tensor: tensor.nbytes)
            meter.relabel(tensors[-1:], "weights")
            meter.relabel(tensors[:-1], "quantization")


@contextmanager
def _with_contents(owner: Any, name: str) -> Iterator[None]:
    """Has a function compute with contents for a while: where sequences begin, and which tiles masks have."""
    own = getattr(owner, name)

    def computed(*args: Any, **keywords: Any) -> Any:
        with really():
            return own(*args, **keywords)

    setattr(owner, name, computed)
    try:
        yield
    finally:
        setattr(owner, name, own)


class _Headers:
    """Files of which the headers alone are known: their tensors come without contents."""

    files: tuple[Path, ...] = ()
    tokenizer_backend = ""
    meter: MemoryMeter | None = None

    def __init__(self, asked: DryRun) -> None:
        self.config = asked.config
        self.reference = asked.reference
        self.tensors = asked.tensors

    def read(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in self.tensors:
            yield name, self.tensor(name)

    def tensor(self, name: str) -> torch.Tensor:
        info = self.tensors[name]
        assert self.meter is not None
        with self.meter.labelled(_FILE if info.dtype in PLAIN and info.dtype != "F64" else "working"):
            return torch.empty(info.shape, dtype=_TYPES.get(info.dtype, torch.float32))

    def save_tokenizer(self, folder: Path) -> None:
        raise NotImplementedError


class _Stores:
    """The run's quantizer, or what its recipe fields say it stores where it can't work without contents."""

    def __init__(self, asked: DryRun) -> None:
        self._asked = asked

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        asked = self._asked
        told = asked.quantizer_config.stored_bytes(layer, weight.itemsize)
        kept = layer.file_bytes is not None and told == layer.file_bytes
        try:
            if not kept:
                return asked.quantizer.quantize(weight, layer)
        except Exception:
            if told is None:
                raise
        return _Opaque(layer, told if told is not None else weight.nbytes)


class _Opaque(FrozenWeight):
    """A weight of which only its size is known."""

    def __init__(self, layer: LayerInfo, size: int) -> None:
        super().__init__(layer.out_features, layer.in_features)
        self.codes = nn.Parameter(torch.empty(size, dtype=torch.uint8), requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(self.out_features, self.in_features, dtype=dtype)

    def meta(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> _Opaque:
        raise NotImplementedError
