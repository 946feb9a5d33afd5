"""What a base model's sentence-transformers files say of how its hidden states become vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError, ModelError
from graftkit.interfaces.architecture import EMBEDDING_POOLING, EMBEDDING_PROMPTS, PooledBy, head_of
from graftkit.interfaces.model_source import BaseModelFiles, SentenceModules
from graftkit.interfaces.sentence_files import pooling_modes, sentence_modules_in
from graftkit.visible import one_line

__all__ = [
    "compared_by",
    "default_prompt_of",
    "lowers_case",
    "numbers_kept",
    "own_prompts",
    "pooling_of",
    "pooling_of_adapter",
    "prompts_of",
    "text_limits",
]

_KNOWN: Mapping[str, PooledBy] = {"mean": "mean", "cls": "cls", "lasttoken": "lasttoken"}

_FILES = "its sentence-transformers files"

_THEIRS = "sentence_transformers."
"""What the types of sentence-transformers' own modules begin with; others are code of the model's authors."""

_SAY = "Say objective.pooling to leave that out: what is trained is then another model than its authors made."


_USUAL: Mapping[str, object] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
}
"""What a Transformer's settings may say: what they mean where they say nothing."""

_LAST_STATES = {"method": "forward", "method_output_name": "last_hidden_state"}
_MODEL_ARGUMENTS = frozenset(
    {"attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype", "trust_remote_code", "use_cache"}
)
_TOKENIZER_ARGUMENTS = frozenset({"model_max_length", "pad_token", "padding_side", "trust_remote_code", "use_fast"})
_CALL_ARGUMENTS = frozenset({"padding", "return_tensors", "truncation"})
_ARGUMENTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("config_args", "config_kwargs", "model_args", "model_kwargs"), _MODEL_ARGUMENTS),
    **dict.fromkeys(("tokenizer_args", "processor_kwargs"), _TOKENIZER_ARGUMENTS),
}
"""What those may hold that the model, its configuration or its tokenizer is made with: it changes no vector of a text
that is not cut."""


_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""What sentence-transformers calls the prompts of queries and of documents; the first of them that there is."""


def pooling_of(files: BaseModelFiles) -> PooledBy:
    """Returns what a model's vectors are made of: what its files say, or what suits its kind.

    That is the mean for an encoder, which transformers has with a head that fills in masked tokens, and the last token
    for others, which see no later one.

    Raises:
        ModelError: Its files ask for something else than the mean, the first or the last token, or contradict one
            another.
    """
    own = files.config.get(EMBEDDING_POOLING)
    known = None if own is None else _known([own], files.reference, "config.json")
    modules = files.sentence_modules if isinstance(files, SentenceModules) else {}
    said = _pooled_by_modules(modules, files.reference)
    if known is not None:
        if said not in (None, known):
            raise _contradicts(EMBEDDING_POOLING, known, said, files.reference)
        return known
    if said is not None:
        return said
    head = head_of(files.config)
    if head == "masked":
        return "mean"
    if head == "language" and files.config.get("architectures"):
        return "lasttoken"
    # Of the body alone its name does not say; this takes the time that importing torch does.
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return "mean" if files.config.get("model_type") in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "lasttoken"


def own_prompts(files: BaseModelFiles) -> Mapping[str, str]:
    """Returns what a model's files put before queries and documents.

    Where its config.json says nothing of it, as graftkit's does, that is what sentence-transformers puts before them in
    `encode_query` and `encode_document`.

    Raises:
        ModelError: It is something else than a text for each, or those files say something else than config.json.
    """
    found = files.config.get(EMBEDDING_PROMPTS)
    theirs = prompts_of(files)
    named = {name: next((theirs[one] for one in known if one in theirs), "") for name, known in _NAMES.items()}
    said = {name: text for name, text in named.items() if text}
    if found is None:
        return said
    if not isinstance(found, Mapping) or not all(
        name in ("query", "document") and isinstance(text, str) for name, text in found.items()
    ):
        told = f"its {EMBEDDING_PROMPTS} are no texts by the names query and document"
        raise ModelError(told, where=files.reference, hint="Its config.json is damaged.")
    if said not in ({}, found):
        raise _contradicts(EMBEDDING_PROMPTS, dict(found), said, files.reference)
    return dict(found)


def _contradicts(key: str, own: object, said: object, reference: str) -> ModelError:
    return ModelError(
        f"{key} of its config.json is {own!r:.80}, and {_FILES} say {said!r:.80}",
        where=reference,
        hint=f"Another program has written these since: take {key} out of config.json, or make the two alike.",
    )


def pooling_of_adapter(folder: Path, files: BaseModelFiles) -> PooledBy:
    """Returns what the vectors of an adapted model are made of: what the adapter's files say, or the base's.

    Args:
        folder: The adapter, which sentence-transformers may have written.
        files: The base model.

    Raises:
        FolderError: The adapter's files ask for something else than the mean, the first or the last token.
        ModelError: Those of the base model do.
    """
    try:
        said = _pooled_by_modules(sentence_modules_in(folder, FolderError), str(folder))
    except ModelError as error:
        hint = "Merge it with peft's merge_and_unload."
        raise FolderError(error.message, where=error.where, hint=hint) from None
    return said or pooling_of(files)


def _pooled_by_modules(modules: Mapping[str, Mapping[str, Any]], reference: str) -> PooledBy | None:
    """Returns what a list of modules makes vectors of; None where it says nothing.

    Raises:
        ModelError: It is something that graftkit does not know.
    """
    said: PooledBy | None = None
    for name, settings in modules.items():
        kind = _kind_of(name)
        if kind == "Pooling":
            said = _pooled_by(settings, reference)
        elif kind == "Transformer":
            _check_made_as_usual(settings, reference)
        elif kind not in ("", "Transformer", "Normalize"):
            raise _refused(f"its vectors go through a module {one_line(kind, 80)}", reference)
    return said


def _check_made_as_usual(settings: Mapping[str, Any], reference: str) -> None:
    """Makes sure that a Transformer gives the last hidden states of the model that lies there, as its config.json says.

    Args:
        settings: The module's.
        reference: The model, for errors.

    Raises:
        ModelError: It does something else.
    """
    if "model_max_length" not in settings:
        raise _made_otherwise("that the model lies in a folder of its own", reference)
    said = {key: settings.get(key, usual) for key, usual in _USUAL.items()}
    others = [f"{key}: {value}" for key, value in said.items() if value is not None and value != _USUAL[key]]
    ways = settings.get("modality_config")
    if ways is not None:
        text = ways.get("text") if isinstance(ways, Mapping) else None
        if not isinstance(text, Mapping) or {key: text.get(key) for key in _LAST_STATES} != _LAST_STATES:
            others.append(f"modality_config: {ways}")
    calls = settings.get("processing_kwargs")
    calls = {} if not isinstance(calls, Mapping) else {key: calls.get(key) for key in ("common", "text")}
    for name, given, known in (
        *((key, settings.get(key), known) for key, known in _ARGUMENTS.items()),
        *((f"processing_kwargs.{key}", given, _CALL_ARGUMENTS) for key, given in calls.items()),
    ):
        if given and (not isinstance(given, Mapping) or not given.keys() <= known):
            others.append(f"{name}: {given}")
    if others:
        raise _made_otherwise(one_line("; ".join(others), 160), reference)


def _made_otherwise(what: str, reference: str) -> ModelError:
    return ModelError(f"{_FILES} say {what}, which graftkit does not follow", where=reference, hint=_SAY)


def prompts_of(files: BaseModelFiles) -> Mapping[str, str]:
    """Returns what a model's sentence-transformers files put before texts, by the names of these prompts.

    Raises:
        ModelError: They are no texts.
    """
    said = _of_all(files).get("prompts") or {}
    if not isinstance(said, Mapping) or not all(isinstance(text, str | None) for text in said.values()):
        raise ModelError(f"the prompts of {_FILES} are no texts by their names", where=files.reference)
    return {name: text for name, text in said.items() if text}


def default_prompt_of(files: BaseModelFiles) -> str | None:
    """Returns the name of the prompt that a model's files put before every text which is asked without one."""
    said = _of_all(files).get("default_prompt_name")
    return said if isinstance(said, str) else None


def compared_by(files: BaseModelFiles) -> str | None:
    """Returns by what a model's files compare vectors, where that is not their cosine; None where it is.

    The product of two vectors of the length 1 is their cosine.
    """
    said = _of_all(files).get("similarity_fn_name")
    modules = files.sentence_modules if isinstance(files, SentenceModules) else {}
    normalized = any(_kind_of(name).partition(" ")[0] == "Normalize" for name in modules)
    if not isinstance(said, str) or said == "cosine" or (said in ("dot", "dot_score") and normalized):
        return None
    return said


def _of_all(files: BaseModelFiles) -> Mapping[str, Any]:
    """Returns what they say that holds for all modules."""
    return files.sentence_modules.get("", {}) if isinstance(files, SentenceModules) else {}


def text_limits(files: BaseModelFiles) -> Mapping[str, int]:
    """Returns after how many tokens a model's sentence-transformers files cut texts, by what says so."""
    said = _of_texts(files)
    found = {name: said.get(name) for name in ("max_seq_length", "model_max_length")}
    for key in ("tokenizer_args", "processor_kwargs"):  # whose limit goes before the other
        given = said.get(key)
        if isinstance(given, Mapping) and "model_max_length" in given:
            found["max_seq_length"] = given["model_max_length"]
    return {name: limit for name, limit in found.items() if type(limit) is int and limit > 0}


def lowers_case(files: BaseModelFiles) -> bool:
    """Tells whether a model's sentence-transformers files write texts in lower case."""
    return _of_texts(files).get("do_lower_case") is True


def numbers_kept(files: BaseModelFiles) -> int | None:
    """Returns how many numbers of a vector a model's sentence-transformers files keep; None where that is all."""
    kept = _of_all(files).get("truncate_dim")
    return kept if type(kept) is int and kept > 0 else None


def _of_texts(files: BaseModelFiles) -> Mapping[str, Any]:
    """Returns what they say of texts before the model sees them."""
    modules = files.sentence_modules if isinstance(files, SentenceModules) else {}
    return next((settings for name, settings in modules.items() if _kind_of(name) == "Transformer"), {})


def _kind_of(module: str) -> str:
    """Returns which of sentence-transformers' modules one is; of another the type in full."""
    return module.rpartition(".")[2] if module.startswith(_THEIRS) else module


def _pooled_by(settings: Mapping[str, Any], reference: str) -> PooledBy:
    """Returns what a module of pooling makes vectors of.

    Raises:
        ModelError: It is something that graftkit does not know.
    """
    if not settings:
        raise _refused("what its vectors are made of is not to be found in the folder of its Pooling", reference)
    found = _known(pooling_modes(settings) or ["mean"], reference)
    if settings.get("include_prompt") is False:
        raise _refused("its vectors leave the prompt's tokens out", reference)
    return found


def _known(modes: Sequence[object], reference: str, said_by: str = _FILES) -> PooledBy:
    found = _KNOWN.get(str(modes[0])) if len(modes) == 1 else None
    if found is None:
        raise _refused(f"its vectors are made of {' and '.join(map(str, modes)):.80}", reference, said_by)
    return found


def _refused(what: str, reference: str, said_by: str = _FILES) -> ModelError:
    return ModelError(
        f"{what} ({said_by}), of which graftkit knows the mean, cls and lasttoken alone",
        where=reference,
        hint=_SAY,
    )
