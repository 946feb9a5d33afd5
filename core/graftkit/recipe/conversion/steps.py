"""What a step of other programs is: how long examples are, how many it holds, how many there are, in what type."""

from __future__ import annotations

from graftkit.recipe.conversion.draft import Draft, is_count, is_number

__all__ = ["convert_batch", "convert_duration", "convert_length", "convert_memory", "convert_precision"]


def convert_length(draft: Draft) -> None:
    """Converts how long an example is, and what becomes of a longer one."""
    length = draft.count("sequence_len", "cutoff_len", "max_length", "max_seq_length")
    if length is not None:
        draft.put("data.max_length", length)
    said = draft.take("excess_length_strategy") or ("drop" if draft.program in ("Axolotl", "ms-swift") else "truncate")
    overflow = {"drop": "drop", "truncate": "truncate", "raise": "error"}.get(str(said), "drop")
    draft.put("data.overflow", overflow)
    if overflow != said and said != "raise":
        draft.leave("excess_length_strategy", said, "data.overflow is drop, truncate, error or drop_turns")


def convert_duration(draft: Draft) -> None:
    """Converts how long training takes."""
    steps, epochs = draft.take("max_steps"), draft.take("num_epochs", "num_train_epochs")
    if is_count(steps):
        draft.put("training.steps", steps)
        draft.leave("num_train_epochs", epochs, "max_steps says how long")
        return
    if steps != -1:  # which says nothing
        draft.leave("max_steps", steps, "training.steps is a whole number")
    if is_number(epochs) and 0 < epochs <= 10_000:
        draft.put("training.epochs", int(epochs) if epochs == int(epochs) else epochs)
    else:
        draft.leave("num_train_epochs", epochs, "training.epochs is a number up to 10,000; say training.steps")


def convert_batch(draft: Draft) -> None:
    """Converts how much a step holds."""
    size = draft.count("micro_batch_size", "per_device_train_batch_size")
    passes = draft.count("gradient_accumulation_steps")
    packed = draft.take("sample_packing", "packing")
    length = draft.recipe.get("data", {}).get("max_length")
    counted = size is not None or passes is not None
    if packed and not (counted and length):
        draft.told.append("packing: examples lie side by side without padding, and none attends to another")
    if not counted:
        return
    examples = (size or 1) * (passes or 1)
    if packed and length:
        draft.put("training.tokens_per_step", examples * length)
        draft.told.append(
            f"training.tokens_per_step counts tokens: {examples} packed sequences of {length}, on one device; with "
            "several, multiply by their number"
        )
    else:
        draft.examples_per_step = examples


def convert_precision(draft: Draft) -> None:
    """Converts the type of the computation."""
    said = "bf16" in draft.settings
    halves, weights = draft.take("bf16", "pure_bf16", "bfloat16"), draft.take("dtype", "torch_dtype")
    if draft.take("fp16", "float16"):
        dtype = "bfloat16"
        draft.told.append("training.dtype: bfloat16 in place of float16, which a recipe does not have")
        draft.leave("bf16", halves, "fp16 says the type of the computation")
    elif halves:
        dtype = "auto" if halves == "auto" else "bfloat16"
    elif weights in ("auto", "bfloat16", "float32"):
        dtype = str(weights)
    elif said:
        dtype = "float32"
    else:
        draft.leave("dtype", weights, "training.dtype is auto, bfloat16 or float32")
        return
    draft.put("training.dtype", dtype)
    if weights not in (dtype, "auto"):
        draft.leave("dtype", weights, f"the computation is in {dtype}")


def convert_memory(draft: Draft) -> None:
    """Converts what is kept in memory."""
    recomputed = draft.take("gradient_checkpointing")
    offloaded = draft.take("activation_offloading")
    if recomputed or offloaded:
        draft.put("memory.checkpoint", "blocks")
    if recomputed == "offload" or offloaded:
        draft.put("memory.offload", True)
