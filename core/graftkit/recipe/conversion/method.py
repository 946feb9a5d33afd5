"""How a model is trained in other programs: the method, its adapter, and how frozen weights are stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graftkit.recipe.conversion.draft import Draft, split_at_commas

__all__ = ["convert_adapter", "convert_method", "convert_whole_modules"]


def convert_method(draft: Draft) -> None:
    """Converts how the model is trained: by an adapter, or as a whole; and how its frozen weights are stored."""
    said = draft.take("adapter", "finetuning_type", "use_peft")
    by_default = "full" if draft.program in ("Axolotl", "TRL") else "lora"
    name = by_default if said is None else "lora" if said is True or said == "qlora" else str(said)
    if name not in ("lora", "full"):
        draft.leave("adapter", name, f"the recipe says lora in place of {name}")
        name = "lora"
    draft.put("adapter.use", name)
    if name == "full":
        draft.told.append(
            "adapter: full trains the linear layers; norms and embeddings stay frozen unless adapter.modules_to_save "
            "names them"
        )
    _quantizer(draft, said)


def _quantizer(draft: Draft, method: object) -> None:
    bits = draft.take("quantization_bit")
    four, eight = draft.take("load_in_4bit"), draft.take("load_in_8bit")
    single = draft.is_off("double_quantization", "bnb_4bit_use_double_quant")
    double = draft.take("double_quantization", "bnb_4bit_use_double_quant", "use_bnb_nested_quant")
    kind, method_of = draft.take("bnb_4bit_quant_type"), draft.take("quantization_method")
    if kind != "nf4":
        draft.leave("bnb_4bit_quant_type", kind, "4 bits are nf4's")
    if method_of not in ("bnb", "bitsandbytes"):
        draft.leave("quantization_method", method_of, "quantizers are nf4, int8, none and stored")
    if four or bits == 4 or (method == "qlora" and not eight):
        # Axolotl and LLaMA-Factory quantize the scales, too, unless they are told otherwise; TRL where it is told.
        scales = bool(double) if draft.program == "TRL" else not single
        draft.put("quantizer", {"use": "nf4", "double_quant": scales})
        draft.leave("load_in_8bit", eight, "weights are stored in 4 bits")
        draft.leave("quantization_bit", bits if bits != 4 else None, "weights are stored in 4 bits")
        return
    draft.leave("double_quantization", double, "nf4's scales alone are quantized")
    if eight or bits == 8:
        draft.put("quantizer", "int8")
    else:
        draft.put("quantizer", "none")
    draft.leave("quantization_bit", bits if bits != 8 else None, "nf4 has 4 bits, int8 has 8")


def convert_adapter(draft: Draft) -> None:
    """Converts the adapter's fields and targets."""
    if draft.recipe["adapter"]["use"] == "full":
        for name in [name for name in draft.settings if name.startswith(("lora_", "peft_"))]:
            draft.leave(name, draft.take(name), "no adapter is trained, but the linear layers themselves")
        return
    for key, names in _LORA.items():
        value = draft.take(*names)
        if value is not None:
            draft.put(f"adapter.{key}", value)
    rank = draft.recipe["adapter"].get("rank")
    if draft.program == "LLaMA-Factory" and isinstance(rank, int):  # whose alpha is twice the rank
        draft.recipe["adapter"].setdefault("alpha", 2 * rank)
    start = draft.take("peft_init_lora_weights", "init_lora_weights")
    if draft.take("pissa_init"):
        start = "pissa"
    if start in ("pissa", "olora", "gaussian", "orthogonal"):
        draft.put("adapter.init", start)
    elif start is not True:
        draft.leave("peft_init_lora_weights", start, "adapter.init is kaiming, gaussian, orthogonal, pissa or olora")
    _targets(draft)


def _targets(draft: Draft) -> None:
    everything = draft.take("lora_target_linear")
    named = draft.take("lora_target_modules", "lora_target", "target_modules")
    names = split_at_commas(named) if isinstance(named, str) else named
    if everything or named in ("all", "all-linear"):
        draft.put("adapter.targets", "all-linear")
        if named not in ("all", "all-linear"):
            draft.leave("lora_target_modules", named, "lora_target_linear takes all linear layers")
    elif isinstance(names, list) and all(isinstance(name, str) and re.fullmatch(r"[\w.*-]+", name) for name in names):
        draft.put("adapter.targets", names)
    else:
        draft.leave("lora_target_modules", named, "adapter.targets takes names and patterns such as *.self_attn.*")


def convert_whole_modules(draft: Draft) -> None:
    """Converts which modules are trained as wholes."""
    named = draft.take("lora_modules_to_save", "modules_to_save", "additional_target")
    names = split_at_commas(named) if isinstance(named, str) else named
    if "tokenizer" in draft.recipe:
        draft.leave("modules_to_save", named, "the rows of added tokens are trained anyway, and no others then")
    elif isinstance(names, list) and all(isinstance(name, str) for name in names):
        draft.put("adapter.modules_to_save", names)
    else:
        draft.leave("modules_to_save", named, "adapter.modules_to_save takes names of modules")


_LORA: Mapping[str, Sequence[str]] = {
    "rank": ("lora_r", "lora_rank"),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "rslora": ("peft_use_rslora", "use_rslora"),
    "dora": ("peft_use_dora", "use_dora"),
    "lora_plus_ratio": ("loraplus_lr_ratio",),
}
