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
    "xlm-roberta": {**_SMALL, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 130},
    "modernbert": {**_SMALL, "local_attention": 16, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}
    | {"bos_token_id": 2, "eos_token_id": 3, "global_attn_every_n_layers": 3, "deterministic_flash_attn": False},
    "nomic_bert": {**_SMALL, "head_dim": 8, "pad_token_id": 0},
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

    tokenizer = {"roberta": _byte_level, "xlm-roberta": _unigram}.get(kind, _wordpiece)()
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
    names = ("bos", "pad", "eos", "unk")
    given = {f"{name}_token": token for name, token in zip(names, specials, strict=False)}
    given["mask_token"] = _mask()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **given, cls_token="<s>", sep_token="</s>")


def _unigram() -> Any:
    """Returns a tokenizer of XLM-RoBERTa's kind, with SentencePiece's table that has white space become spaces."""
    from io import BytesIO
    from tempfile import NamedTemporaryFile

    from sentencepiece import SentencePieceTrainer
    from sentencepiece.sentencepiece_model_pb2 import ModelProto
    from transformers import XLMRobertaTokenizer

    texts, written = iter([" ".join(_WORDS)] * 9), BytesIO()
    with NamedTemporaryFile("w") as rules:
        rules.writelines(f"{space:X}\t20\n" for space in (9, 10, 11, 12, 13, 0xA0, 0x2003, 0x2028, 0x3000))
        rules.write("BD\t31 2F 32\n41\t61\n65 301\t65\n")
        rules.flush()
        SentencePieceTrainer.train(
            sentence_iterator=texts,
            model_writer=written,
            vocab_size=40,
            hard_vocab_limit=False,
            normalization_rule_tsv=rules.name,
            minloglevel=2,
        )
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *_LETTERS, *(f"▁{word}" for word in _WORDS), "ly", "lo", "<mask>"]
    return XLMRobertaTokenizer(
        vocab=[(piece, 0.0 if piece.startswith("<") else -len(pieces) / (9 + n)) for n, piece in enumerate(pieces)],
        _spm_precompiled_charsmap=ModelProto.FromString(written.getvalue()).normalizer_spec.precompiled_charsmap,
        mask_token=_mask(),
    )


def _mask() -> Any:
    """Returns the mask token as RoBERTa has it, which takes the white space before it."""
    from tokenizers import AddedToken

    return AddedToken("<mask>", lstrip=True, special=True)
