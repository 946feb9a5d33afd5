"""What can be known of the base model before a record is encoded: its device, and what it computes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch

from graftkit.errors import ModelError, RecipeError
from graftkit.flow.base_files.stored_weights import describe_stored
from graftkit.flow.planning.named_fields import NamedFields
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.state.context import RunContext
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import state_width, token_types
from graftkit.interfaces.counts import count_weights
from graftkit.model.activation_checkpointing import why_no_checkpointing
from graftkit.model.model_plan import check_base_model
from graftkit.model.packing import Packing, choose_packing
from graftkit.model.skeleton import build_config
from graftkit.model.stored_weights import check_stored_weights
from graftkit.recipe.schema.recipe import Recipe
from graftkit.report.run_manifest import SequenceFacts

__all__ = ["PlannedBase", "check_model", "offloads", "pick_device", "plan_base"]


_OF_PADDING = (
    "in a batch with longer texts this architecture computes a text otherwise, since it computes padding with it, "
    "masked or not: texts are learnt alone. Ask it one text at a time, with batch_size=1"
)


@dataclass(frozen=True, slots=True)
class PlannedBase:
    """Where and how the base model will compute.

    Attributes:
        device: Where.
        packing: Whether sequences share a pass.
        stored: What becomes of weights that are quantized in their file.
        no_checkpointing: Why its blocks can't be computed twice, where the recipe leaves open whether they are.
        teacher_packing: Whether sequences share a pass of the teacher's; one by one where there is none.
    """

    device: torch.device
    packing: Packing
    stored: tuple[str, ...] = ()
    no_checkpointing: str = ""
    teacher_packing: Packing = field(default_factory=lambda: Packing(False))

    @property
    def notices(self) -> list[str]:
        """What the user should know of it."""
        packing = [] if self.packing.packed else [f"sequences run one by one in training: {self.packing.reason}"]
        padding = [_OF_PADDING] if self.packing.sees_padding else []
        return [*self.stored, *packing, *padding]


def check_model(run: RunContext) -> PlannedBase:
    """Checks where and how the base model will compute; its tensors' names are checked where targets are settled.

    Raises:
        RecipeError: There is no such device here.
        ModelError: The model is not causal, or its weights are stored in a format that nobody knows.
    """
    with run.stage("model check") as stage:
        planned = plan_base(run.plan, run.host)
        for notice in planned.notices:
            stage.notice(notice)
        packing = planned.packing
        run.record(sequences=SequenceFacts(packed=packing.packed, reason=packing.reason))
        stage.facts |= {"device": str(planned.device), "packed": packing.packed}
        return planned


def plan_base(plan: RunPlan, host: PluginHost) -> PlannedBase:
    """Returns where and how the base model of a plan will compute.

    Raises:
        RecipeError: There is no such device here, its blocks can't be computed twice, which the recipe asks for, or
            the objective's fields do not hold for its vectors.
        ModelError: The model is not causal, or its weights are stored in a format that nobody knows; or nothing says
            how many types of tokens pairs of texts have.
    """
    bound, files = plan.bound, plan.files
    device = of_this_process(pick_device(bound.recipe.training.device))
    quantizer = bound.quantizer
    uses = check_stored_weights(files, host.registry.create(quantizer.registered, quantizer.config))
    name, itemsize = quantizer.registered.provider.name, getattr(torch, bound.recipe.training.dtype).itemsize
    stored = describe_stored(uses, name, quantizer.config, itemsize, exported=bool(bound.exports))
    weights = count_weights(files.tensors)
    packing = choose_packing(files.config, files.reference, weights)
    if plan.head and plan.head.pairs:
        _check_types(plan)
    if bound.objective_config.head == "embedding":
        NamedFields(bound).check_width(state_width(build_config(files.config)))
    asked = bound.recipe.memory.checkpoint
    why = "" if asked == "none" else why_no_checkpointing(files.config, packing, weights)
    if asked == "blocks" and why:
        raise RecipeError(
            f"this {files.config['model_type']} model can't be trained with activation checkpointing: {why}",
            where=bound.document.where(("memory", "checkpoint")),
            hint="Leave memory.checkpoint out; less training.microbatch_tokens takes less memory, too.",
        )
    return PlannedBase(device, packing, tuple(stored), why, _plan_teacher(plan, host))


def _check_types(plan: RunPlan) -> None:
    """Makes sure that pairs of texts are encoded with as many types of tokens as the model has.

    Raises:
        ModelError: Its config.json leaves out how many, and its architecture has several then.
    """
    usual = token_types(build_config(plan.files.config).to_dict())
    if usual != plan.encoder.rules.token_types:
        raise ModelError(
            f"its config.json leaves out type_vocab_size, which is {usual} then: the two texts of a pair would be "
            "learnt without types, and given with them in use",
            where=plan.files.reference,
            hint=f'Write "type_vocab_size": {usual} into it.',
        )


def offloads(recipe: Recipe, device: torch.device) -> bool:
    """Tells whether the inputs of blocks wait in the host's memory: on a CPU they are there anyway."""
    return recipe.memory.offload and device.type != "cpu"


def _plan_teacher(plan: RunPlan, host: PluginHost) -> Packing:
    """Checks that the teacher's weights can be loaded, and returns how sequences share a pass of its.

    Raises:
        ModelError: Its architecture or its weights are not supported.
    """
    if plan.teacher is None:
        return Packing(False)
    files, create = plan.teacher.files, host.registry.create
    check_base_model(files)
    check_stored_weights(files, create(plan.teacher.quantizer, plan.teacher.quantizer_config))
    return choose_packing(files.config, files.reference, count_weights(files.tensors))


def of_this_process(device: torch.device) -> torch.device:
    """Returns which of a machine's CUDA devices is this process's, where torchrun has started several on it.

    Where another launcher gave each process a device, which is then the only one that it sees, it is that.

    Raises:
        RecipeError: There are more processes than devices.
    """
    local = os.environ.get("LOCAL_RANK", "")
    if device.type != "cuda" or device.index is not None or not local.isdigit():
        return device
    seen = torch.cuda.device_count()
    if int(local) < seen:
        return torch.device("cuda", int(local))
    if seen == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return torch.device("cuda", 0)
    raise RecipeError(
        f"this is process {int(local) + 1} of this machine, and it sees {seen} CUDA device{'s' * (seen != 1)}: "
        "each process needs one of its own",
        where="training.device",
        hint="Start as many processes as there are devices (CUDA_VISIBLE_DEVICES), or say training.device=cpu.",
    )


def pick_device(name: str) -> torch.device:
    """Returns the device of a name; `auto` is cuda, then mps, then cpu, whichever there is.

    Raises:
        RecipeError: There is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise RecipeError(
            f"device '{name}' can't be used here: {reason}",
            where="training.device",
            hint="Leave training.device out to take what is here.",
        ) from None
    return device
