"""The records that another program's settings name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graftkit.errors import RecipeError
from graftkit.recipe.conversion.draft import Draft, Program, split_at_commas, take_split
from graftkit.recipe.conversion.mlx_lm import data_of_mlx_lm
from graftkit.recipe.conversion.ms_swift import data_of_ms_swift
from graftkit.recipe.conversion.unconverted import why_not

__all__ = ["converted_data"]

_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "history": "history", "system": "system"}
"""LLaMA-Factory's names of an Alpaca record's columns, and the format's own."""
_AS_HERE: Mapping[str, Sequence[Any]] = {
    "roles_to_train": (["assistant"], ["gpt"], ["assistant", "gpt"], ["gpt", "assistant"]),
    "train_on_eos": ("turn",),
    "train_on_eot": ("turn",),
    "chat_template": ("tokenizer_default",),
}
"""What keys of an Axolotl data set may say that is so without them."""


def converted_data(draft: Draft, data_sets: Mapping[str, Any], is_there: Callable[[str], bool]) -> dict[str, Any]:
    """Returns the recipe's `data.train` and `data.holdout`.

    Args:
        draft: The settings, from which the records' keys are taken.
        data_sets: What LLaMA-Factory's dataset_info.json says.
        is_there: Whether a path leads to something.

    Raises:
        RecipeError: They name no records.
    """
    entries = list(_READ[draft.program](draft, data_sets, is_there))
    if not entries:
        raise RecipeError(f"the settings of {draft.program} name no records")
    train = [_placed(entry, is_there) for entry in entries]
    said: dict[str, Any] = {"train": train[0] if len(train) == 1 else train}
    held = _held(draft, is_there)
    if held is not None:
        said["holdout"] = held
    else:
        draft.told.append("data.holdout: a twentieth of the records is held out; with 0 all are trained on")
    return said


def _placed(entry: dict[str, Any], is_there: Callable[[str], bool]) -> Any:
    """Returns a data set as a recipe names it: a file as it is, another name as the hub's."""
    path = str(entry["path"])
    if not is_there(path) and _HUB.fullmatch(path) and "." not in path.rpartition("/")[2][-6:]:
        entry = {**entry, "path": f"hub:{path}"}
    return entry["path"] if len(entry) == 1 else entry


def _held(draft: Draft, is_there: Callable[[str], bool]) -> Any:
    others = draft.take("test_datasets", "eval_dataset", "validation_file")
    split = draft.take("dataset_test_split")
    size = draft.take("val_set_size", "val_size")
    draft.leave("dataset_test_split", split, "data.holdout takes a file, or {path: hub:OWNER/NAME, split: NAME}")
    files = [_placed(entry, is_there) for entry in _each_of_axolotl(draft, others, "test_datasets")]
    if files:
        draft.leave("val_set_size", size, "test_datasets says what is held out")
        return files[0] if len(files) == 1 else files
    if not isinstance(others, list):
        draft.leave("eval_dataset", others, "data.holdout takes a file, or a share of the records")
    if isinstance(size, int | float) and not isinstance(size, bool) and 0 <= size <= 0.5:
        return size
    draft.leave("val_set_size", size, "data.holdout is a share from 0 to 0.5, not a number of records")
    return None


def _axolotl(draft: Draft, data_sets: Mapping[str, Any], is_there: Callable[[str], bool]) -> list[dict[str, Any]]:
    return _each_of_axolotl(draft, draft.take("datasets", "pretraining_dataset"), "datasets")


def _each_of_axolotl(draft: Draft, said: object, name: str) -> list[dict[str, Any]]:
    """Returns those of a list's data sets that name where they are; others are left."""
    found = []
    for number, entry in enumerate(said if isinstance(said, list) else []):
        if isinstance(entry, dict) and "path" in entry:
            found.append(_of_axolotl(draft, entry, f"{name}[{number}]"))
        else:
            draft.leave(f"{name}[{number}]", entry, "it names no path")
    return found


def _of_axolotl(draft: Draft, said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns one of Axolotl's data sets: its path, and what its type says of its columns."""
    rest = dict(said)
    path, files, kind = rest.pop("path"), rest.pop("data_files", None), str(rest.pop("type", "") or "")
    files = files[0] if isinstance(files, list) and len(files) == 1 else files
    if isinstance(files, str):
        path = files if path in ("json", "csv", "parquet", "text") else f"{path}/{files}"
    elif files:
        draft.leave(f"{name}.data_files", files, "name each file as a data set of its own")
    entry: dict[str, Any] = {"path": path}
    rest.pop("ds_type", None)
    take_split(draft, entry, rest.pop("split", None), f"{name}.split")
    if rest.get("revision"):
        entry["revision"] = rest.pop("revision")
    _columns_of_axolotl(draft, entry, rest, kind, name)
    for key, value in rest.items():
        if value not in _AS_HERE.get(key, ()):
            draft.leave(f"{name}.{key}", value, why_not(key, "records are read by their own columns"))
    return entry


def _columns_of_axolotl(draft: Draft, entry: dict[str, Any], rest: dict[str, Any], kind: str, name: str) -> None:
    messages, text = rest.pop("field_messages", None), rest.pop("field", None)
    mapping = _mapping(draft, rest, "message_property_mappings", name)
    role, content = rest.pop("message_field_role", None), rest.pop("message_field_content", None)
    mapping = {"role": role, "content": content} | mapping
    if kind.startswith("alpaca"):
        entry["format"] = "alpaca"
        draft.told.append(
            f"{name}: an Alpaca record is a conversation in the model's chat template, not Alpaca's own text"
        )
    elif kind == "chat_template" or kind.startswith("sharegpt"):
        turns = mapping.get("role") == "from" or kind.startswith("sharegpt")
        for part, known in (("role", ("role", "from")), ("content", ("content", "value"))):
            if mapping.get(part) not in (None, *known):
                draft.leave(f"{name}.{part}", mapping[part], f"a message's {part} is read by its usual names alone")
        entry["format"] = "sharegpt" if turns else "messages"
        own = "conversations" if turns else "messages"
        if messages not in (None, "messages", "conversation", "conversations"):
            entry["columns"] = {own: messages}
    elif kind in ("completion", "pretrain", ""):
        if text not in (None, "text"):
            entry["columns"] = {"text": text}
        if kind == "completion":
            entry["format"] = "text"
    else:
        draft.leave(f"{name}.type", kind, "the format is found by the records' own columns; data.train.format says it")


def _mapping(draft: Draft, said: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """Takes a data set's key that holds a mapping; returns an empty one where it holds none."""
    found = said.pop(key, None)
    if isinstance(found, dict):
        return found
    draft.leave(f"{name}.{key}", found, "it is no mapping")
    return {}


def _llama_factory(draft: Draft, data_sets: Mapping[str, Any], is_there: Callable[[str], bool]) -> list[dict[str, Any]]:
    named, folder = draft.take("dataset", "dataset_name"), draft.take("dataset_dir") or "data"
    names = split_at_commas(named) if isinstance(named, str) else named if isinstance(named, list) else []
    found = [_of_llama_factory(draft, str(name), data_sets.get(str(name)), str(folder)) for name in names]
    most = draft.count("max_samples")
    return [{**entry, "first": most} for entry in found] if most else found


def _of_llama_factory(draft: Draft, name: str, info: Any, folder: str) -> dict[str, Any]:
    """Returns one of LLaMA-Factory's data sets, as its dataset_info.json describes it."""
    if not isinstance(info, dict):
        draft.told.append(f"data.train: {name} is no name in {folder}/dataset_info.json; write where its records are")
        return {"path": f"{folder}/{name}.json"}
    rest = dict(info)
    hub, file = rest.pop("hf_hub_url", None), rest.pop("file_name", None)
    rest.pop("ms_hub_url", None), rest.pop("om_hub_url", None)
    entry: dict[str, Any] = {"path": f"{folder}/{file}" if file else hub}
    take_split(draft, entry, rest.pop("split", None), f"{name}.split")
    columns, tags = _mapping(draft, rest, "columns", name), _mapping(draft, rest, "tags", name)
    turns = rest.pop("formatting", "alpaca") in ("sharegpt", "openai")
    if rest.pop("ranking", False):
        entry["format"] = "preference"
        own = {"prompt": "prompt", "messages": "prompt", "chosen": "chosen", "rejected": "rejected"}
    elif "kto_tag" in columns:
        entry["format"] = "preference"
        own = {"prompt": "prompt", "messages": "messages", "response": "completion", "kto_tag": "label"}
    elif turns:
        entry["format"] = "messages" if tags.get("role_tag") == "role" else "sharegpt"
        own = {"messages": "messages" if entry["format"] == "messages" else "conversations"}
    else:
        entry["format"], own = "alpaca", _ALPACA
    own = {**own, "system": "system", "tools": "tools"}
    renamed = {own[key]: column for key, column in columns.items() if key in own and own[key] != column}
    if renamed:
        entry["columns"] = renamed
    for key, value in {**rest, **{key: columns[key] for key in columns.keys() - own.keys()}}.items():
        draft.leave(f"{name}.{key}", value, "records are read by their own columns")
    return entry


def _trl(draft: Draft, data_sets: Mapping[str, Any], is_there: Callable[[str], bool]) -> list[dict[str, Any]]:
    mixture, name = draft.take("datasets"), draft.take("dataset_name")
    split = draft.take("dataset_train_split")
    text = draft.take("dataset_text_field")
    if isinstance(mixture, list):
        draft.leave("dataset_name", name, "datasets says what is read")
        return _each_of_axolotl(draft, mixture, "datasets")
    draft.leave("datasets", mixture, "it is no list")
    alone = {"path": name, "split": split, **({"field": text} if text else {})}
    return _each_of_axolotl(draft, [alone] if name else [], "datasets")


_READ: Mapping[Program, Callable[[Draft, Mapping[str, Any], Callable[[str], bool]], Iterable[dict[str, Any]]]] = {
    "Axolotl": _axolotl,
    "LLaMA-Factory": _llama_factory,
    "TRL": _trl,
    "mlx-lm": data_of_mlx_lm,
    "ms-swift": data_of_ms_swift,
}
