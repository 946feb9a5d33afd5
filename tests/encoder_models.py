"""Tiny encoders with their tokenizers, as transformers saves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["ENCODERS", "encoder_folder", "encoder_recipe"]

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "initializer_range": 0.15,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {**_SMALL, "pad_token_id": 0},
    "roberta": {**_SMALL, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 130},
    "modernbert": {**_SMALL, "local_attention": 16, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}
    | {"bos_token_id": 2, "eos_token_id": 3, "global_attn_every_n_layers": 3, "deterministic_flash_attn": False},
}
"""Configurations by type."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_WORDS = ("the", "film", "was", "and", "long", "short", "love", "##ly", "great", "awful", "poor", "un")


def encoder_folder(folder: Path, kind: str, *, whole: bool = True) -> Path:
    """Writes a random encoder with the output layer for masked tokens, and its tokenizer.

    Args:
        folder: Where; made when missing.
        kind: One of `ENCODERS`.
        whole: Whether the file has that output layer, too; else the body alone, as `AutoModel` saves it.
    """
    from transformers import CONFIG_MAPPING, AutoModel, AutoModelForMaskedLM

    tokenizer = _byte_level() if kind == "roberta" else _wordpiece()
    tokenizer.save_pretrained(folder)
    config = CONFIG_MAPPING[kind](**ENCODERS[kind], vocab_size=len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: Any = (AutoModelForMaskedLM if whole else AutoModel).from_config(config, attn_implementation="eager")
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    return folder


def encoder_recipe(
    model: Path,
    records: Path,
    exports: Sequence[Any] = (),
    *,
    objective: Any,
    step: Mapping[str, int],
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """Returns the recipe of a run of a few steps.

    Args:
        model: The base model.
        records: The file of records.
        exports: What is exported.
        objective: What is learnt.
        step: How many tokens a step has, and what else the recipe's `training` says wherever the objective is learnt.
        data: Further keys of the recipe's `data`.
        training: Further keys of its `training`.
        sections: Further sections.
    """
    return {
        "model": str(model),
        "data": {"train": str(records), "holdout": 0.2, **(data or {})},
        "objective": objective,
        "adapter": {"use": "lora", "rank": 4},
        "quantizer": "none",
        "training": {"steps": 24, "learning_rate": 1e-2, "device": "cpu", **step, **(training or {})},
        "export": list(exports),
        **sections,
    }


def _wordpiece() -> Any:
    """Returns a tokenizer of BERT's kind, which puts `[CLS]` before a text and `[SEP]` after it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*specials, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return BertTokenizerFast(tokenizer_object=backend)


def _byte_level() -> Any:
    """Returns a tokenizer of RoBERTa's kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {piece: id for id, piece in enumerate([*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = ("bos", "pad", "eos", "unk", "mask")
    given = {f"{name}_token": token for name, token in zip(names, specials, strict=True)}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **given, cls_token="<s>", sep_token="</s>")
