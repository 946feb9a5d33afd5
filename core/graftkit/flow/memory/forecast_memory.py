"""What a run will take of memory: computed on tensors without contents, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil, prod
from typing import Any

import torch

from graftkit.flow.memory.measured_memory import own_memory
from graftkit.host.guard import brief
from graftkit.host.host import PluginHost
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.model_source import TensorInfo
from graftkit.interfaces.objective_config import MaskedConfig, SampledConfig, TeacherConfig
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.packing import Packing
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.schema.recipe import Recipe
from graftkit.report.run_manifest import MemoryForecast, StageMemory
from graftkit.training.block_uses import BlockUses
from graftkit.training.dry_run import AnswerSizes, DryRun, PassSizes, Peak, dry_run, dry_teacher
from graftkit.training.order import group_by_tokens, plan_steps

__all__ = [
    "MemoryRequest",
    "Sizes",
    "TeacherModel",
    "examples_of",
    "forecast_memory",
    "forecast_with_blocks",
    "largest_pass",
    "passes_of_steps",
    "request_of",
    "teacher_model",
]

_PASSING = ("activations", "logits", "cache")
"""Parts that are made and freed again and again."""
_TRAINED_MODEL = ("weights", "quantization", "other_weights", "adapter", "head")
"""Parts that stay from loading to the last export."""
_FREED = {4: 0.8, 2: 0.5}
"""What a process holds besides of what it has freed, as a share of those parts and of the gradients, by the bytes of a
number.

glibc's malloc keeps what is free between blocks in use, and a block that was freed is too small for the next of its own
size, since `posix_memalign` asks for more to align it. Blocks of more than 32 MiB are mapped where nothing free has
room for them, and not among it; gradients, which are made as activations go, find such room. No formula gives the
share: it is measured, by tests/benchmarks/forecast.py.
"""
_FREED_MORE = 1.5
"""How often that is held where a step has several passes: what the first leaves lies between the next one's blocks."""
_KERNELS, _KERNEL_BYTES = 1024, 650_000
"""How many kernels oneDNN keeps (`ONEDNN_PRIMITIVE_CACHE_CAPACITY`), and what one takes.

It compiles one for each product of 16-bit matrices of other shapes, such as those of each expert's tokens. The size was
measured, by products of 100 numbers of rows: 0.58 to 0.69 MB each, rarely more.
"""
_STEPS = 1000
"""Steps that are looked at for the largest pass."""


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """What a run's memory depends on.

    Attributes:
        dry: What is computed without contents.
        device: The type of the device that the model computes on.
        exports: Whether the whole model is exported, a tensor at a time.
        program: The bytes that the interpreter and its libraries take.
        teacher: The model that is scored before, if there is one.
        steps: The tokens of each pass of the first steps.
        together: Whether the objective looks at all examples of a step together.
    """

    dry: DryRun
    device: str = "cpu"
    exports: bool = False
    program: int = 0
    teacher: DryRun | None = None
    steps: Sequence[Sequence[int]] = ()
    together: bool = False

    def with_teacher(self, teacher: TeacherModel | None) -> MemoryRequest:
        """Returns the request of a run that scores a teacher before."""
        if teacher is None:
            return self
        facts = {field.name: getattr(teacher, field.name) for field in fields(teacher)}
        return replace(self, teacher=replace(self.dry, **facts, targets=(), answers=None, change=None))


@dataclass(frozen=True, slots=True)
class TeacherModel:
    """What of a teacher a run's memory depends on; see `DryRun`."""

    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    reference: str
    quantizer: Quantizer
    quantizer_config: ProviderConfig
    packing: Packing


def teacher_model(
    bound: BoundRecipe,
    host: PluginHost,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    reference: str,
    packing: Packing,
) -> TeacherModel:
    """Returns the teacher of a recipe whose objective has one, held as that objective says.

    Args:
        bound: The recipe.
        host: The plugins.
        config: The teacher's config.json.
        tensors: Its tensors, as its files' headers tell them.
        reference: Its reference, for errors.
        packing: How sequences share a pass of its.
    """
    said = bound.objective_config
    assert isinstance(said, TeacherConfig)
    quantizer = host.registry.resolve("quantizer", said.teacher_quantizer)
    fields_of_quantizer = host.registry.config_class(quantizer)()
    made = host.registry.create(quantizer, fields_of_quantizer)
    return TeacherModel(config, tensors, reference, made, fields_of_quantizer, packing)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of the records a run's memory depends on.

    Attributes:
        lengths: Tokens of each example.
        learnt: How many of these are in the loss.
        prompt: Tokens of the longest prompt that is answered.
        different: How many numbers of tokens passes have at least; see `PassSizes`.
        sequences: How many sequences an example has, each of which may be as long as a record.
    """

    lengths: Sequence[int]
    learnt: Sequence[int]
    prompt: int
    different: int = 1
    sequences: int = 1


def request_of(
    bound: BoundRecipe,
    host: PluginHost,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    reference: str,
    targets: Sequence[str],
    packing: Packing,
    device: str,
    sizes: Sizes,
    change: VocabularyChange | None = None,
    program: int | None = None,
    saved: Sequence[str] = (),
    ties_saved: bool = False,
    unties: bool = False,
) -> MemoryRequest:
    """Returns what to ask of a recipe.

    Args:
        bound: The recipe, its names resolved.
        host: The plugins.
        config: The base model's config.json.
        tensors: Its tensors, as its files' headers tell them.
        reference: Its reference, for errors.
        targets: The layers that are adapted.
        packing: How sequences share a pass.
        device: The type of the device that the model computes on.
        sizes: How long the examples are.
        change: What becomes of the vocabulary.
        program: The bytes that the interpreter and its libraries take; those of this process when left out.
        saved: As for `DryRun`.
        ties_saved: As for `DryRun`.
        unties: As for `DryRun`.
    """
    create, recipe, sampled = host.registry.create, bound.recipe, None
    answers = _answers(recipe, sizes.prompt)
    sampling = bound.objective_config if isinstance(bound.objective_config, SampledConfig) else None
    if sampling is not None:
        recipe, sizes, sampled = _sampled(recipe, sampling, sizes)
        evaluated = replace(sampled, copies=1)  # an answer to each prompt
        answers = evaluated if answers is None else max(answers, evaluated, key=_tokens)
    largest = largest_pass(recipe, sizes, packed=packing.packed)
    if isinstance(bound.objective_config, MaskedConfig):
        largest = replace(largest, learnt=ceil(largest.learnt * bound.objective_config.probability))
    dry = DryRun(
        config=config,
        tensors=tensors,
        reference=reference,
        quantizer=create(bound.quantizer.registered, bound.quantizer.config),
        quantizer_config=bound.quantizer.config,
        adapter=create(bound.adapter.registered, bound.adapter.config),
        targets=targets,
        dtype=getattr(torch, bound.recipe.training.dtype),
        packing=packing,
        largest=largest,
        training=bound.recipe.training,
        answers=answers,
        sampled=sampled,
        keeps_start=sampling is not None and sampling.compares_with_start,
        temperature=sampling.temperature if sampling else 1.0,
        change=change,
        device=device,
        checkpointed=bound.recipe.memory.checkpoint == "blocks",
        saved=saved,
        ties_saved=ties_saved,
        unties=unties,
    )
    lengths = _cut_lengths(recipe, sizes)
    steps = passes_of_steps(recipe, sizes, packed=packing.packed)
    return MemoryRequest(
        dry,
        device,
        bool(bound.exports),
        (own_memory() or 0) if program is None else program,
        steps=[[sum(lengths[example] for example in group) for group in step] for step in steps],
        together=bound.objective_config.minimizes == "step",
    )


def largest_pass(recipe: Recipe, sizes: Sizes, *, packed: bool) -> PassSizes:
    """Returns the pass with most tokens among those of a training's first steps.

    Args:
        recipe: The recipe; examples are cut to its `data.max_length`.
        sizes: How long they are.
        packed: Whether sequences share a pass.
    """
    largest = examples_of(recipe, sizes, packed=packed)
    return PassSizes(tuple(largest.lengths), sum(largest.learnt), largest.different)


def examples_of(recipe: Recipe, sizes: Sizes, *, packed: bool) -> Sizes:
    """Returns the examples of the largest pass; see `largest_pass`."""
    lengths = _cut_lengths(recipe, sizes)
    passes = [group for step in passes_of_steps(recipe, sizes, packed=packed) for group in step]
    tokens = [sum(lengths[example] for example in group) for group in passes]
    largest, different = passes[tokens.index(max(tokens))], max(sizes.different, len(set(tokens)))
    learnt = [min(sizes.learnt[example], lengths[example]) for example in largest]
    return replace(sizes, lengths=[lengths[example] for example in largest], learnt=learnt, different=different)


def passes_of_steps(recipe: Recipe, sizes: Sizes, *, packed: bool) -> list[list[list[int]]]:
    """Returns the numbers of the examples of each pass, or of each one that has passes of its own, of the first steps.

    Args:
        recipe: The recipe; examples are cut to its `data.max_length`.
        sizes: How long they are.
        packed: Whether sequences share a pass.
    """
    lengths = _cut_lengths(recipe, sizes)
    limit = recipe.training.pass_tokens if packed else 0
    return [group_by_tokens(step, lengths, limit) for step in _first_steps(recipe, lengths)]


def _first_steps(recipe: Recipe, lengths: Sequence[int]) -> list[list[int]]:
    """Returns the numbers of the examples of each of a training's first steps."""
    section, steps = recipe.training, min(recipe.training.steps or _STEPS, _STEPS)
    return plan_steps(lengths, seed=section.seed, tokens_per_step=section.tokens_per_step, steps=steps)


def _cut_lengths(recipe: Recipe, sizes: Sizes) -> list[int]:
    limit = recipe.data.max_length
    return [length if limit is None else min(length, limit * sizes.sequences) for length in sizes.lengths]


def _answers(recipe: Recipe, longest_prompt: int) -> AnswerSizes | None:
    """Returns what an evaluation generates at a time, or None where it generates nothing."""
    evaluation = recipe.evaluation
    if not evaluation.answers:
        return None
    side_by_side = min(evaluation.batch_size, evaluation.answers)
    return AnswerSizes(side_by_side, max(1, longest_prompt), evaluation.max_new_tokens)


def _tokens(sizes: AnswerSizes) -> int:
    return sizes.answers * (sizes.prompt + sizes.new_tokens)


def _sampled(recipe: Recipe, config: SampledConfig, sizes: Sizes) -> tuple[Recipe, Sizes, AnswerSizes]:
    """Returns what a run's memory depends on whose steps sample answers, each as long as it may be.

    Args:
        recipe: The recipe.
        config: Its objective's fields.
        sizes: What of the records it depends on; of an example all but what is learnt is the prompt.

    Returns:
        The recipe with the tokens of a step's answers, these answers, and how they are made.
    """
    lengths = _cut_lengths(recipe, sizes)
    prompts = [max(1, length - learnt) for length, learnt in zip(lengths, sizes.learnt, strict=True)]
    limit, most = recipe.data.max_length, config.max_new_tokens
    answered = [prompt + most if limit is None else max(prompt + 1, min(limit, prompt + most)) for prompt in prompts]
    steps, size = _first_steps(recipe, lengths), config.group_size
    tokens = max(size * sum(answered[example] for example in step) for step in steps)
    copies = min(size, recipe.evaluation.batch_size)
    side_by_side = max(1, min(recipe.evaluation.batch_size // size, max(map(len, steps)))) * copies
    made = AnswerSizes(side_by_side, max(prompts), most, copies=copies)
    several = [length for length in answered for _ in range(size)]
    whole = recipe.model_copy(update={"training": recipe.training.model_copy(update={"tokens_per_step": tokens})})
    return whole, replace(sizes, lengths=several, learnt=[most] * len(several)), made


def forecast_memory(asked: MemoryRequest) -> MemoryForecast:
    """Returns the most memory that each stage of a run takes; it depends on nothing but what is asked.

    Of each stage it is what the run's own code holds at once (`graftkit.training.dry_run`), and what else takes memory:

    - `program`: the interpreter, torch, transformers and the plugins, as they lie in this process;
    - loading on a device of its own: the largest tensor, as its file has it, and in float32, in the machine's memory;
    - on the CPU `freed`: what the process has freed and malloc has not given back;
    - on the CPU, in 16 bits, `kernels`: what oneDNN compiles for products, one for each shape, and keeps;
    - a teacher, which is loaded, scored and freed before: its weights, and its largest pass, forward alone;
    - an export of the whole model: three times its largest matrix in float32, which are the dequantized weight, the
      adapter's product and their sum.

    Where a part of the model can't be computed without contents the forecast says why, and has no stages.
    """
    return forecast_with_blocks(asked)[0]


def forecast_with_blocks(asked: MemoryRequest) -> tuple[MemoryForecast, BlockUses | None]:
    """Returns what `forecast_memory` does, and what several processes would exchange; None where that is not known."""
    dry = asked.dry
    try:
        peaks = [dry_teacher(asked.teacher)] if asked.teacher else []
        foreseen = dry_run(dry)
    except Exception as error:
        return MemoryForecast(device=asked.device, unknown=f"{type(error).__name__}: {brief(error)}"), None
    peaks += foreseen.peaks
    if asked.exports:
        peaks.append(_export(asked, peaks))
    found = MemoryForecast(
        device=asked.device,
        pass_tokens=dry.largest.tokens,
        pass_sequences=len(dry.largest.lengths),
        stages=[_stage(asked, peak) for peak in peaks],
    )
    return found, foreseen.blocks


def _export(asked: MemoryRequest, peaks: Sequence[Peak]) -> Peak:
    """Returns what is held while the whole model is written: the model itself, and a matrix at a time."""
    last = peaks[-1]
    kept = {part: last.parts.get(part, 0) for part in _TRAINED_MODEL}
    working = 3 * _largest(asked.dry)
    return Peak("export", kept | {"working": working}, {}, last.products)


def _largest(dry: DryRun) -> int:
    """Returns the bytes of the largest tensor in float32."""
    return max((4 * prod(info.shape) for info in dry.tensors.values()), default=0)


def _stage(asked: MemoryRequest, peak: Peak) -> StageMemory:
    parts = {part: size for part, size in peak.parts.items() if size}
    if asked.device == "cpu":
        parts |= {"program": asked.program, "freed": _freed(asked, peak)}
        if peak.products:
            kernels = min(_KERNELS, peak.products * asked.dry.largest.different)
            parts["kernels"] = _KERNEL_BYTES * kernels
        return StageMemory(stage=peak.stage, host=sum(parts.values()), parts=parts)
    loads = {"teacher": asked.teacher, "base model": asked.dry, "export": asked.dry}.get(peak.stage)
    passing = 2 * _largest(loads) if loads else 0
    return StageMemory(stage=peak.stage, host=asked.program + passing, device=peak.total, parts=parts)


def _freed(asked: MemoryRequest, peak: Peak) -> int:
    """Returns the bytes that the process has freed by then and malloc has not given back."""
    passing = sum(max(0, peak.parts.get(part, 0) - peak.mapped.get(part, 0)) for part in _PASSING)
    share = _FREED[asked.dry.dtype.itemsize]
    gradients = peak.parts.get("gradients", 0)
    if gradients and any(len(passes) > 1 for passes in asked.steps):
        share *= _FREED_MORE
    return round(share * (passing + gradients))
