"""What a config.json says of a model's head, and which of transformers' classes holds a model with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "EMBEDDING_POOLING",
    "EMBEDDING_PROMPTS",
    "NUMBERED_FROM_PADDING",
    "OF_WHOLES",
    "SCORING",
    "SEVERAL_LABELS",
    "WITHOUT_LOGITS",
    "Head",
    "PooledBy",
    "head_of",
    "is_multimodal",
    "labels_of",
    "load_pretrained",
    "model_class",
    "skipped_positions",
    "state_width",
    "text_settings",
    "token_types",
    "with_head",
]

Head = Literal["language", "sequence", "token", "masked", "embedding"]
"""What stands on a model's hidden states: `language`, the output layer of a causal language model; `sequence`, a few
scores of a whole sequence, as transformers' `*ForSequenceClassification` computes them; `token`, a few scores of each
token, as `*ForTokenClassification` computes them; `masked`, the output layer of an encoder that fills in masked tokens,
as `*ForMaskedLM` has it; `embedding`, nothing: a sequence's hidden states are pooled to one vector, as
sentence-transformers does with what `AutoModel` loads."""

PooledBy = Literal["mean", "cls", "lasttoken"]
"""What a sequence's vector is made of: the mean of the hidden states of all its tokens, that of the first, or that of
the last one, as sentence-transformers calls them."""

EMBEDDING_POOLING = "embedding_pooling"
"""The key of a config.json that says so, one of `PooledBy`, in what graftkit writes."""

EMBEDDING_PROMPTS = "embedding_prompts"
"""The key of a config.json that says what is put before texts, by what they are, `query` or `document`, likewise."""

SCORING: frozenset[Head] = frozenset({"sequence", "token"})
"""The heads that give a few scores, each of which has a name, and whose parameters a base model's files lack."""

WITHOUT_LOGITS: frozenset[Head] = SCORING | {"embedding"}
"""The heads of models that give a few numbers, or a vector, and no logits over a vocabulary."""

OF_WHOLES: frozenset[Head] = frozenset({"sequence", "embedding"})
"""The heads of models that say something of a whole sequence, once."""

NUMBERED_FROM_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""The `model_type`s whose first position is one more than the id of their configuration's padding token."""

SEVERAL_LABELS = "multi_label_classification"
"""The `problem_type` of a config.json whose classifier judges each label by itself."""

_CLASSES: Mapping[Head, str] = {
    "language": "ForCausalLM",
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "masked": "ForMaskedLM",
    "embedding": "Model",
}
"""How the names of transformers' classes with each head end."""
_END = re.compile(r"(For[A-Z][A-Za-z]*|LMHeadModel|DoubleHeadsModel|Model)$")

_MOST_TYPES = 256

_PARTS = ("text_config", "vision_config", "audio_config")


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Tells whether a config.json describes towers for images or sound beside its language model."""
    return any(isinstance(config.get(part), Mapping) for part in _PARTS)


def text_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the part of a config.json that describes its language model: `text_config`, or else all of it.

    Example:
        >>> text_settings({"model_type": "gemma3", "text_config": {"vocab_size": 262208}})
        {'vocab_size': 262208}
    """
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def head_of(config: Mapping[str, Any]) -> Head:
    """Returns the head that a config.json names by its `architectures`; a language model's where it names none.

    Example:
        >>> head_of({"architectures": ["LlamaForSequenceClassification"]})
        'sequence'

    Of the names that end with `Model` those with a head are language models:
        >>> head_of({"architectures": ["GPT2LMHeadModel"]}), head_of({"architectures": ["GPT2Model"]})
        ('language', 'embedding')
    """
    named = str((config.get("architectures") or [""])[0])
    if named.endswith(("HeadModel", "HeadsModel")):
        return "language"
    return next((head for head, end in _CLASSES.items() if named.endswith(end)), "language")


_MOST_UNNAMED = 100_000


def labels_of(config: Mapping[str, Any]) -> list[str]:
    """Returns what the scores of a config.json's classifier are of, in their order; none where it is no classifier.

    Example:
        >>> labels_of({"architectures": ["LlamaForSequenceClassification"], "id2label": {"1": "good", "0": "bad"}})
        ['bad', 'good']

    transformers leaves the names out of a config.json where they are those of two labels that nobody named:
        >>> labels_of({"architectures": ["LlamaForSequenceClassification"]})
        ['LABEL_0', 'LABEL_1']
    """
    if head_of(config) not in SCORING:
        return []
    named, count = config.get("id2label"), config.get("num_labels", 2)
    if named is None and isinstance(count, int) and 0 < count <= _MOST_UNNAMED:
        return [f"LABEL_{number}" for number in range(count)]
    if not isinstance(named, Mapping) or not all(str(key).isdecimal() for key in named):
        return []
    return [str(named[key]) for key in sorted(named, key=int)]


def token_types(config: Mapping[str, Any]) -> int:
    """Returns of how many types of tokens a model has embeddings, by which it tells the two texts of a pair apart.

    Args:
        config: Its config.json.

    Returns:
        The number; 0 where there is one type alone, or none.

    Example:
        >>> token_types({"model_type": "bert", "type_vocab_size": 2})
        2
    """
    count = config.get("type_vocab_size")
    return count if isinstance(count, int) and 1 < count <= _MOST_TYPES else 0


def skipped_positions(config: Mapping[str, Any]) -> int:
    """Returns how many of a model's learned positions no token of a text has, since they count from the padding on.

    Args:
        config: Its config.json.

    Example:
        >>> skipped_positions({"model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 514})
        2
    """
    if config.get("model_type") not in NUMBERED_FROM_PADDING:
        return 0
    padding = config.get("pad_token_id")
    return (padding if isinstance(padding, int) else 1) + 1


def with_head(
    config: Mapping[str, Any],
    head: Head,
    labels: Sequence[str] = (),
    pad: int | None = None,
    *,
    several: bool = False,
    pooled_by: PooledBy | None = None,
    prompts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns a config.json that asks for another head.

    Args:
        config: The base model's.
        head: The head.
        labels: What the scores of a sequence, or of a token, are of, in their order; a single one without a name where
            there are none. A single score of a sequence is a number, unless a text may have `several`.
        pad: The id of the tokenizer's padding token, by which decoders find the last token of a padded sequence; it
            takes the place of the base's, unless the base numbers positions from that on.
        several: Whether a text may have several of the labels, each of which is judged by itself.
        pooled_by: What a sequence's vector is made of, of a model without a head; what the base's says when left out.
        prompts: What is put before texts, likewise. Of a model with a head neither is said.

    Example:
        >>> with_head({"architectures": ["LlamaForCausalLM"]}, "sequence", ["bad", "good"])["architectures"]
        ['LlamaForSequenceClassification']
    """
    named = (config.get("architectures") or [""])[0]
    found = {**config, "architectures": [f"{_END.sub('', str(named))}{_CLASSES[head]}"]}
    for key, value in ((EMBEDDING_POOLING, pooled_by), (EMBEDDING_PROMPTS, prompts)):
        if head != "embedding":
            found.pop(key, None)
        elif value is not None:
            found[key] = value if isinstance(value, str) else dict(value)
    if head in SCORING:
        names = list(labels) or ["LABEL_0"]
        found |= {
            "id2label": {str(number): name for number, name in enumerate(names)},
            "label2id": {name: number for number, name in enumerate(names)},
        }
        if head == "sequence":
            problem = SEVERAL_LABELS if several else "single_label_classification"
            found["problem_type"] = problem if len(names) > 1 or several else "regression"
        else:
            found.pop("problem_type", None)
        found.pop("num_labels", None)
        numbered = config.get("pad_token_id") is not None and config.get("model_type") in NUMBERED_FROM_PADDING
        if pad is not None and not numbered:
            found["pad_token_id"] = pad
    return found


def state_width(config: Any) -> int:
    """Returns how many numbers a hidden state has that a model without a head gives, whatever its config.json calls it.

    Args:
        config: transformers' own configuration.
    """
    text = config.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)  # to which OPT projects them


def model_class(config: Any) -> Any | None:
    """Returns the class that holds a configuration's model with its head, or None where transformers has none.

    Where `config.architectures` names another head, that is the class with such a head; else the causal language
    model's. Where `config.text_config` describes the language model, that is the multimodal class, such as
    `Gemma3ForConditionalGeneration`: what AutoModelForMultimodalLM and AutoModelForImageTextToText choose.

    Args:
        config: transformers' own configuration.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_MULTIMODAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
    )

    text = config.get_text_config()
    if config.is_encoder_decoder or text.is_encoder_decoder:
        return None
    head = head_of({"architectures": config.architectures})
    by_head: Mapping[Head, Any] = {
        "sequence": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        "token": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
        "masked": MODEL_FOR_MASKED_LM_MAPPING,
        "embedding": MODEL_MAPPING,
    }
    mappings: tuple[Any, ...]
    if head in by_head:
        mappings = (by_head[head],)
    elif text is config:
        mappings = (MODEL_FOR_CAUSAL_LM_MAPPING,)
    elif text is getattr(config, "text_config", None):
        mappings = (MODEL_FOR_MULTIMODAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
    else:
        return None
    found = next((mapping[type(config)] for mapping in mappings if type(config) in mapping), None)
    return found[0] if isinstance(found, tuple) else found


def load_pretrained(folder: Path, **options: Any) -> Any:
    """Loads a folder as transformers saves it, by the class of its config.json.

    Args:
        folder: Holds config.json and the weights.
        options: Further keywords of `from_pretrained`; unless given `dtype` is "auto", the weights' own types.

    Raises:
        ValueError: transformers has no such model of that configuration, or tensors are missing, left over
            or of another shape, which transformers itself would make up for by random ones.
    """
    from transformers import AutoConfig

    local = bool(options.get("local_files_only"))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=local)
    found = model_class(config)
    if found is None:
        raise ValueError(f"transformers has no such model of type '{config.model_type}'")
    keywords = {"dtype": "auto", "trust_remote_code": False, **options}
    model, info = found.from_pretrained(folder, config=config, output_loading_info=True, **keywords)
    embeds = head_of({"architectures": config.architectures}) == "embedding"
    needless = {name for name in info["missing_keys"] if embeds and str(name).startswith("pooler.")}  # of no vector
    keys = {kind: {*names} - needless for kind, names in info.items() if kind.endswith("_keys")}
    odd = {kind: sorted(map(str, names)) for kind, names in keys.items() if names}
    if odd:
        kind, names = next(iter(odd.items()))
        raise ValueError(f"{len(names)} {kind.replace('_', ' ')}, such as {names[0]}")
    return model
