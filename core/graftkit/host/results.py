"""What a provider's method gives, looked at where it is called: whoever gave it is named, not whoever used it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graftkit.articles import with_article
from graftkit.host.records import LONGEST_NOTICE, MOST_NOTICES
from graftkit.interfaces.kinds import Kind
from graftkit.interfaces.model_source import (
    BaseModelFiles,
    GenerationSettings,
    LicensedModel,
    ProcessorSettings,
    SentenceModules,
    TensorInfo,
    TokenizerFiles,
    WatchedModel,
)
from graftkit.interfaces.tokenizer import Encoding, Tokenizer, bytes_of
from graftkit.interfaces.vocabulary import ExtensionPlan, NewToken, TrainingSpec
from graftkit.interfaces.vocabulary_limits import MOST_IDS

if TYPE_CHECKING:
    from graftkit.interfaces.exporter import ProofRequest
    from graftkit.interfaces.initializer import NewRows

__all__ = ["GIVES_TOKENIZERS", "LARGEST_SCORE", "Part", "kind_named", "said_of_model", "wrong_with"]

Part = Literal["made tokenizer"]
"""What a provider makes whose methods core calls, too: the tokenizer that a backend gives."""


def wrong_with(kind: Kind | Part, method: str, given: Sequence[Any], result: Any) -> str:
    """Returns what is wrong with what a provider's method gave, or "".

    Args:
        kind: The provider's kind, or what it has made.
        method: The method's name.
        given: What it was called with.
        result: What it returned.

    Example:
        >>> wrong_with("adapter", "peft_config", (), 3)
        'gave an int, not a mapping or None'
    """
    check = _CHECKS.get((kind, method))
    return check(given, result) if check else ""


def kind_named(value: object) -> str:
    """Returns what a value is called where another was due, such as "an int"."""
    return "None" if value is None else with_article(type(value).__name__)


def _attached(given: Sequence[Any], result: Any) -> str:
    from graftkit.interfaces.adapted_weight import AdaptedWeight

    return "" if isinstance(result, AdaptedWeight) else f"gave {kind_named(result)}, not an AdaptedWeight"


def _mapping(given: Sequence[Any], result: Any) -> str:
    return "" if isinstance(result, Mapping) else f"gave {kind_named(result)}, not a mapping"


def _peft_config(given: Sequence[Any], result: Any) -> str:
    if result is not None and not isinstance(result, Mapping):
        return f"gave {kind_named(result)}, not a mapping or None"
    try:
        json.dumps(dict(result or {}), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"gave what no adapter_config.json can hold: {error}"
    return ""


def _peft_tensors(given: Sequence[Any], result: Any) -> str:
    import torch

    if not isinstance(result, Mapping):
        return f"gave {kind_named(result)}, not a mapping"
    for name, tensor in result.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            told = f"a tensor of {tensor.dtype}" if isinstance(tensor, torch.Tensor) else kind_named(tensor)
            return f"gave {told} under {name!r:.80}, where names and tensors of floating-point numbers are due"
    return ""


def _quantized(given: Sequence[Any], result: Any) -> str:
    from graftkit.interfaces.frozen_weight import FrozenWeight

    if not isinstance(result, FrozenWeight):
        return f"gave {kind_named(result)}, not a FrozenWeight"
    due, found = list(given[0].shape), [result.out_features, result.in_features]
    return "" if found == due else f"gave a weight of the shape {found} for one of {due}"


def _adopted(given: Sequence[Any], result: Any) -> str:
    return "" if result is None else _quantized(given, result)


def _text_or_none(given: Sequence[Any], result: Any) -> str:
    return "" if result is None or isinstance(result, str) else f"gave {kind_named(result)}, not a text or None"


def _texts(given: Sequence[Any], result: Any) -> str:
    if not isinstance(result, list | tuple) or not all(isinstance(text, str) for text in result):
        return f"gave {kind_named(result)}, not a list of texts"
    longest = max(map(len, result), default=0)
    few = len(result) <= MOST_NOTICES and longest <= LONGEST_NOTICE
    most = f"where {MOST_NOTICES} of {LONGEST_NOTICE:,} are most"
    return "" if few else f"gave {len(result):,} texts of up to {longest:,} characters, {most}"


def _rows(given: Sequence[Any], result: Any) -> str:
    import torch

    new: NewRows = given[0]
    if not isinstance(result, torch.Tensor) or not result.is_floating_point() or result.layout != torch.strided:
        told = f"a tensor of {result.dtype}" if isinstance(result, torch.Tensor) else kind_named(result)
        return f"gave {told}, not a dense tensor of floating-point numbers"
    due = [len(new.ids), new.weight.shape[1]]
    if list(result.shape) != due or result.is_meta:
        return f"gave rows of the shape {list(result.shape)} on the device {result.device}, for {due}"
    return "" if result.float().isfinite().all() else "gave rows that are not all finite"


def _exported(given: Sequence[Any], result: Any) -> str:
    return _irregular(Path(given[-1])) or _mapping(given, result)


def _irregular(folder: Path) -> str:
    """Returns what is wrong with a folder that was to be written into; whoever reads a pipe waits for ever."""
    if not folder.is_dir():
        return "has removed the folder that it was to write into"
    for path in folder.rglob("*"):
        if _is_irregular(path):
            return f"has written {path.relative_to(folder)}, which is no regular file"
        if not _is_utf8(path.name):
            return f"has written {path.relative_to(folder)}, a name that is not UTF-8: no manifest keeps it"
    return ""


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_irregular(path: Path) -> bool:
    return path.is_symlink() or not (path.is_file() or path.is_dir())


def _logits(given: Sequence[Any], result: Any) -> str:
    import torch

    request: ProofRequest = given[0]
    if not isinstance(result, list | tuple):
        return f"gave {kind_named(result)}, not a list of tensors"
    if len(result) != len(request.probes):
        return f"gave {len(result)} tensors for {len(request.probes)} probes"
    for logits, probe in zip(result, request.probes, strict=True):
        if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
            told = f"a tensor of {logits.dtype}" if isinstance(logits, torch.Tensor) else kind_named(logits)
            return f"gave {told}, not a tensor of floating-point numbers"
        if logits.ndim != 2 or len(logits) != len(probe.positions):
            return f"gave logits of the shape {list(logits.shape)} for {len(probe.positions)} positions"
    return ""


_OF_ASSETS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("tokens", "decoded", "stop_tokens", "added"), (list, tuple)),
    **dict.fromkeys(("generation", "roles", "config_roles"), (Mapping,)),
    "rendered": (str,),
}


def _assets(given: Sequence[Any], result: Any) -> str:
    from graftkit.interfaces.exporter import LoadedAssets

    if not isinstance(result, LoadedAssets):
        return f"gave {kind_named(result)}, not LoadedAssets"
    for name, kinds in _OF_ASSETS.items():
        part = getattr(result, name)
        if part is not None and not isinstance(part, kinds):
            return f"gave {kind_named(part)} as its {name}"
    for name in ("tokens", "added"):
        strange = next((ids for ids in getattr(result, name) or () if not isinstance(ids, list | tuple)), None)
        if strange is not None:
            return f"gave {kind_named(strange)} among its {name}, not a list of ids"
    odd = next((text for text in result.decoded or () if not isinstance(text, str)), None)
    return "" if odd is None else f"gave {kind_named(odd)} among its decoded texts"


_LACKING = object()

_LATER = frozenset({"capabilities", "fingerprint"})
"""What takes long to find out: it is looked at where it is needed, in `graftkit.vocabulary.losses`."""


def _members(part: Any, protocol: type, due: Mapping[str, tuple[tuple[type, ...], str]]) -> str:
    """Returns what a part of a provider's lacks, or has of another kind than is due."""
    if part is None:
        return f"gave None, not {with_article(protocol.__name__)}"
    for name in sorted(set(dir(protocol)) - set(dir(object))):
        if name.startswith("_") or name in _LATER:
            continue
        found = getattr(part, name, _LACKING)
        if found is _LACKING:
            return f"gave {kind_named(part)} without '{name}'"
        if name not in due:
            if not callable(found):
                return f"gave {kind_named(part)} whose '{name}' is {kind_named(found)}, not a method"
            continue
        kinds, told = due[name]
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
            return f"gave {kind_named(part)} whose '{name}' is {kind_named(found)}, not {told}"
    return ""


_TEXT = ((str,), "a text")
_OF_TOKENIZER: Mapping[str, tuple[tuple[type, ...], str]] = {
    "vocab_size": ((int,), "a number of ids"),
    "special_tokens": ((Mapping,), "a mapping of tokens to ids"),
    "chat_template": ((str, type(None)), "a text or None"),
    "adds_bos": ((bool,), "True or False"),
}
_OF_TOKENIZER_FILES: Mapping[str, tuple[tuple[type, ...], str]] = {"reference": _TEXT, "tokenizer_backend": _TEXT}
_OF_MODEL_FILES: Mapping[str, tuple[tuple[type, ...], str]] = {
    **_OF_TOKENIZER_FILES,
    "files": ((list, tuple), "a tuple of paths"),
    "config": ((Mapping,), "a mapping"),
    "tensors": ((Mapping,), "a mapping of names to TensorInfo"),
}


def _tokenizer(given: Sequence[Any], result: Any) -> str:
    wrong = _members(result, Tokenizer, _OF_TOKENIZER)
    if wrong:
        return wrong
    if not 0 < result.vocab_size <= MOST_IDS:
        return f"gave a tokenizer of {result.vocab_size} ids, not of 1 to {MOST_IDS}"
    for name, id in result.special_tokens.items():
        if not name or _text(given, name):
            return f"gave a tokenizer with the special token {name!r:.80}, which is no text"
        if not _is_id(id, result.vocab_size):
            return f"gave a tokenizer whose special token {name!r} has the id {id!r}, of {result.vocab_size} ids"
    return _told_besides(result)


_TOLD_BESIDES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "added_tokens": (lambda value: _is_id(value, MOST_IDS), "an id"),
    "named_tokens": (lambda value: isinstance(value, str), "a text"),
    "chat_templates": (lambda value: isinstance(value, str), "a text"),
}


def _told_besides(tokenizer: Any) -> str:
    """Returns what is wrong with a mapping that a tokenizer may have; an attribute of its name may be anything else."""
    for attribute, (is_due, due) in _TOLD_BESIDES.items():
        found = getattr(tokenizer, attribute, None)
        for name, value in found.items() if isinstance(found, Mapping) else ():
            if not isinstance(name, str) or not is_due(value):
                return f"gave a tokenizer whose '{attribute}' has {value!r:.40} for {name!r:.40}, not {due} for a text"
    return ""


def _extension(given: Sequence[Any], result: Any) -> str:
    if not isinstance(result, ExtensionPlan):
        return f"gave {kind_named(result)}, not an ExtensionPlan"
    return _tokenizer(given, result.tokenizer) or _wrong_extension(given[0], result)


def _wrong_extension(base: Tokenizer, plan: ExtensionPlan) -> str:
    """Returns what is wrong with an extension: rows would be taken from, or made for, ids of another meaning."""
    old, new, tokens = base.vocab_size, plan.tokenizer.vocab_size, plan.tokens
    if not isinstance(tokens, list | tuple) or not all(isinstance(token, NewToken) for token in tokens):
        return f"gave an extension whose tokens are {kind_named(tokens)}, not a tuple of NewTokens"
    if not all(type(token.id) is int for token in tokens) or [token.id for token in tokens] != list(range(old, new)):
        return f"gave an extension whose new ids are not those from {old} to {new - 1}, in order"
    for token in tokens:
        if token.data != plan.tokenizer.token_bytes(token.id):
            return f"gave an extension whose new id {token.id} stands for other bytes than it says"
        if not isinstance(token.parts, list | tuple) or not all(_is_id(id, old) for id in token.parts):
            return f"gave an extension whose new id {token.id} has parts that are no ids of the base"
    if not all(_is_count(count) for count in (plan.base_tokens, plan.tokens_after, *(t.uses for t in tokens))):
        return "gave an extension that counts tokens by something else than whole numbers from 0 on"
    if not dict(base.special_tokens).items() <= dict(plan.tokenizer.special_tokens).items():
        return "gave an extension in which the base's special tokens are not what they were"
    moved = next((id for id in range(old) if bytes_of(base, id) != bytes_of(plan.tokenizer, id)), None)
    return "" if moved is None else f"gave an extension in which the base's id {moved} stands for other bytes"


def _is_count(count: object) -> bool:
    return type(count) is int and count >= 0


def _trained(given: Sequence[Any], result: Any) -> str:
    spec: TrainingSpec = given[1]
    wrong = _tokenizer(given, result)
    if wrong:
        return wrong
    if result.vocab_size > spec.vocab_size:
        return f"gave a tokenizer of {result.vocab_size:,} ids, where {spec.vocab_size:,} are most"
    ids = [result.special_tokens.get(token) for token in spec.special_tokens]
    if ids != list(range(len(ids))):
        return f"gave a tokenizer whose special tokens have the ids {ids!r:.80}, not the first ones in their order"
    return ""


def _is_id(id: object, size: int) -> bool:
    return isinstance(id, int) and not isinstance(id, bool) and 0 <= id < size


def _wrong_ids(ids: Any) -> str:
    """Returns what is wrong with ids; that they have rows is looked at where these are known."""
    if not isinstance(ids, list | tuple):
        return f"gave {kind_named(ids)}, not a list of ids"
    strange = next((id for id in ids if not _is_id(id, MOST_IDS)), None)
    return "" if strange is None else f"gave {strange!r:.40} among the ids"


def _ids(given: Sequence[Any], result: Any) -> str:
    return _wrong_ids(result)


def _batch(given: Sequence[Any], result: Any) -> str:
    if not isinstance(result, list | tuple):
        return f"gave {kind_named(result)}, not a list of lists of ids"
    if len(result) != len(given[0]):
        return f"gave the ids of {len(result)} texts for {len(given[0])}"
    return next(filter(None, map(_wrong_ids, result)), "")


def _encoding(given: Sequence[Any], result: Any) -> str:
    if not isinstance(result, Encoding):
        return f"gave {kind_named(result)}, not an Encoding"
    wrong = _wrong_ids(result.ids)
    if wrong or len(result.offsets) == len(result.ids):
        return wrong
    return f"gave the places of {len(result.offsets)} tokens for {len(result.ids)} ids"


def _text(given: Sequence[Any], result: Any) -> str:
    if not isinstance(result, str):
        return f"gave {kind_named(result)}, not a text"
    try:
        result.encode()
    except UnicodeEncodeError:
        return "gave a text with half of a surrogate pair"
    return ""


def _bytes(given: Sequence[Any], result: Any) -> str:
    return "" if isinstance(result, bytes) else f"gave {kind_named(result)}, not bytes"


def _id_or_none(given: Sequence[Any], result: Any) -> str:
    return "" if result is None or _is_id(result, MOST_IDS) else f"gave {result!r:.40}, not an id or None"


def _saved(given: Sequence[Any], result: Any) -> str:
    folder = Path(given[0])
    return _irregular(folder) or ("" if any(folder.iterdir()) else "has written nothing")


def _tokenizer_files(given: Sequence[Any], result: Any) -> str:
    return _members(result, TokenizerFiles, _OF_TOKENIZER_FILES)


def _model_files(given: Sequence[Any], result: Any) -> str:
    wrong = _members(result, BaseModelFiles, _OF_MODEL_FILES)
    if wrong:
        return wrong
    try:
        said_of_model(result)
    except ValueError as error:
        return f"gave a model {error}"
    return ""


def said_of_model(files: BaseModelFiles) -> dict[str, Any]:
    """Returns what an opened model says of itself, by its attributes, copied: it may say something else later.

    Raises:
        ValueError: It says what no model does.
    """
    paths, tensors = tuple(files.files), dict(files.tensors)
    settings = {"config": _as_json("config", files.config)}
    if isinstance(files, GenerationSettings):
        settings["generation_config"] = _as_json("generation_config", files.generation_config)
    if isinstance(files, ProcessorSettings):
        settings["processors"] = _as_json("processors", files.processors)
    if isinstance(files, SentenceModules):
        settings["sentence_modules"] = _as_json("sentence_modules", files.sentence_modules)
    strange: Any = next((path for path in paths if not isinstance(path, Path)), None)
    if strange is not None:
        raise ValueError(f"with {kind_named(strange)} among its files, not a path")
    for name, info in tensors.items():
        if not isinstance(name, str) or not isinstance(info, TensorInfo):
            raise ValueError(f"with {kind_named(info)} for the tensor {name!r:.80}, not a TensorInfo")
        shape: Any = info.shape
        if not isinstance(shape, list | tuple) or not all(map(_is_count, shape)):
            raise ValueError(f"whose tensor {name!r:.80} has the shape {shape!r:.80}, not whole numbers from 0 on")
        if not isinstance(info.dtype, str):
            raise ValueError(f"whose tensor {name!r:.80} has {kind_named(info.dtype)} for its dtype, not a text")
    if isinstance(files, WatchedModel) and not callable(files.check_unchanged):
        raise ValueError(f"whose 'check_unchanged' is {kind_named(files.check_unchanged)}, not a method")
    texts: dict[str, Any] = {"reference": files.reference, "tokenizer_backend": files.tokenizer_backend}
    if isinstance(files, LicensedModel) and files.license is not None:
        texts["license"] = files.license
    wrong = next((name for name, text in texts.items() if _text((), text)), None)
    if wrong:
        raise ValueError(f"whose {wrong} is {texts[wrong]!r:.80}, which is no text")
    return {"files": paths, "tensors": tensors, **settings, **texts}


def _as_json(name: str, value: object) -> dict[str, Any]:
    """Returns a copy of a model's settings of JSON's types alone."""
    if not isinstance(value, Mapping):
        raise ValueError(f"whose {name} is {kind_named(value)}, not a mapping")
    try:
        found: dict[str, Any] = json.loads(json.dumps(value, default=_as_dict))
        json.dumps(found, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"whose {name} no {name}.json could hold: {error}") from None
    return found


def _as_dict(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{kind_named(value)} in it")


LARGEST_SCORE = 1e100
"""The largest score of a metric, or of an objective's: means of such numbers are numbers, too."""


def _score(given: Sequence[Any], result: Any) -> str:
    if isinstance(result, int | float):
        with suppress(OverflowError):
            if math.fabs(result) <= LARGEST_SCORE:  # which no NaN is
                return ""
    shown = "a very long number" if isinstance(result, int) else f"{result!r:.40}"
    return (
        f"scored the answer at {given[0].record.where} with {shown}, which is no finite number up to {LARGEST_SCORE:g}"
    )


GIVES_TOKENIZERS: frozenset[tuple[Kind | Part, str]] = frozenset(
    {
        *(("tokenizer", "load"), ("tokenizer", "train"), ("tokenizer", "extend")),
        *(("made tokenizer", "with_chat_template"), ("made tokenizer", "with_control_tokens")),
    }
)
"""The methods that give a tokenizer, whose own methods are then looked at, too."""

_CHECKS: Mapping[tuple[Kind | Part, str], Callable[[Sequence[Any], Any], str]] = {
    ("adapter", "attach"): _attached,
    ("adapter", "peft_config"): _peft_config,
    ("adapter", "peft_tensors"): _peft_tensors,
    ("quantizer", "quantize"): _quantized,
    ("quantizer", "adopt"): _adopted,
    ("exporter", "refusal"): _text_or_none,
    ("exporter", "notices"): _texts,
    ("exporter", "export"): _exported,
    ("exporter", "logits"): _logits,
    ("exporter", "assets"): _assets,
    ("initializer", "rows"): _rows,
    ("metric", "score"): _score,
    ("model-source", "open"): _model_files,
    ("model-source", "open_tokenizer"): _tokenizer_files,
    ("tokenizer", "load"): _tokenizer,
    ("tokenizer", "train"): _trained,
    ("tokenizer", "extend"): _extension,
    ("made tokenizer", "with_chat_template"): _tokenizer,
    ("made tokenizer", "with_control_tokens"): _tokenizer,
    ("made tokenizer", "encode"): _ids,
    ("made tokenizer", "encode_batch"): _batch,
    ("made tokenizer", "encode_offsets"): _encoding,
    ("made tokenizer", "decode"): _text,
    ("made tokenizer", "normalize"): _text,
    ("made tokenizer", "decode_bytes"): _bytes,
    ("made tokenizer", "token_bytes"): _bytes,
    ("made tokenizer", "role_token"): _id_or_none,
    ("made tokenizer", "save"): _saved,
}
