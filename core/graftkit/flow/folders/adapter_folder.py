"""Reads an adapter in PEFT's format, whoever made it, before torch is loaded: what it is, and what belongs to what.

Everything in such a folder is a stranger's word. Nothing of it is given to peft.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError

from graftkit.errors import ExportError, FolderError, GraftkitError, PluginCallError
from graftkit.flow.folders.export_manifest import (
    EXPORT_MANIFEST,
    TO_LOAD,
    TO_REBUILD,
    ExportManifest,
    check_all_listed,
    check_as_the_run_lists,
)
from graftkit.flow.folders.listed_files import check_listed
from graftkit.flow.folders.refused_files import check_tensor_header, refuse_bad_files
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.host.guard import brief, guarded, is_stop
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.peft_adapter import PeftFields
from graftkit.interfaces.peft_config import check_adapter_config, read_adapter_config, stored_shapes
from graftkit.interfaces.peft_experts import ExpertLayout
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.peft_targets import peft_targets
from graftkit.report.run_manifest import MANIFEST
from graftkit.store.file_hashes import sha256_of
from graftkit.store.folders import atomic_folder

__all__ = [
    "NEW_ROWS",
    "OF_BASE",
    "PREFIX",
    "AdapterFolder",
    "is_adapter_folder",
    "keep_adapter_folder",
    "read_adapter_folder",
]

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"

PREFIX = "base_model.model."
"""What PEFT's names of tensors begin with."""

NEW_ROWS = ".token_adapter.trainable_tokens_delta"
"""How PEFT's name of an embedding's trained rows ends; they are the rows themselves."""

OF_BASE = "base_layer."
"""What follows a layer's path in PEFT's name of the base model's own tensor, of which it keeps the output layer's."""

_KEPT = (CONFIG, TENSORS, VOCABULARY)
"""The files of an export that a run keeps as they are, where there are such; it saves the tokenizer anew."""

_OF_CORE = frozenset(
    [
        *("task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
        *("modules_to_save", "trainable_token_indices", "ensure_weight_tying"),
    ]
)
"""Keys of an adapter_config.json that are no method's own. `fan_in_fan_out` says how the base stores a weight, which
the base says itself: the tensors are the same."""

_EITHER_HEAD = frozenset(["classifier", "score"])
"""What PEFT names among the `modules_to_save` of every classifier, whichever of the two the model has."""

_COPY = re.compile(rf"[^/]+\.{re.escape(OF_BASE)}(weight|bias)")
_LONGEST_NAME = 1_000
_MOST_PAIRS = 1_000_000
_MOST_MATRICES = 8

_ELSEWHERE = "Merge it with peft's merge_and_unload, and give graftkit the merged model."


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """An adapter in PEFT's format.

    Attributes:
        path: The folder.
        fields: What its adapter_config.json says.
        registered: The adapter that has its method.
        options: The recipe fields of that adapter.
        config: Its config model, made of these.
        layers: The dotted path of every layer that has tensors of the method's, as the file has them.
        saved: The shape of each tensor of whole modules (`modules_to_save`), by the base model's name of it.
        head: Those of the model's head, once the model is known; until then they are among `saved`.
        rows: The ids of trained rows, by the dotted path of their matrix.
        files: The sha256 of its two files, by name.
        manifest: What graftkit says of it, where graftkit made it.
        copies: The names of tensors that are the base model's own: PEFT keeps those of an output layer that it adapts.
    """

    path: Path
    fields: Mapping[str, Any]
    registered: RegisteredProvider
    options: Mapping[str, Any]
    config: ProviderConfig
    layers: Sequence[str]
    saved: Mapping[str, tuple[int, ...]]
    rows: Mapping[str, tuple[int, ...]]
    files: Mapping[str, str]
    manifest: ExportManifest | None = None
    copies: Sequence[str] = ()
    head: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def knowing_head(self, of_head: Callable[[str], bool]) -> AdapterFolder:
        """Returns the folder with the tensors of the model's head apart from other whole modules.

        Args:
            of_head: Tells of a parameter's name whether it is a part of the head.
        """
        head = {name: shape for name, shape in self.saved.items() if of_head(name)}
        saved = {name: shape for name, shape in self.saved.items() if name not in head}
        return replace(self, saved=saved, head={**self.head, **head})

    @property
    def tensors(self) -> Path:
        """The file of its tensors."""
        return self.path / TENSORS

    @property
    def base(self) -> str | None:
        """The base model that it names, where that is a folder or a file on this machine."""
        named = self.fields.get("base_model_name_or_path")
        return named if isinstance(named, str) and named and _is_there(named) else None

    @property
    def ties_saved(self) -> bool:
        """Whether PEFT keeps whole modules of a tied embedding and output layer one matrix."""
        return bool(self.saved and self.fields.get("ensure_weight_tying"))

    @property
    def expert_layouts(self) -> dict[str, ExpertLayout]:
        """Where the tensors of each stack of experts lie; none of an adapter that graftkit didn't make."""
        return self.manifest.expert_layouts() if self.manifest else {}


def _is_there(named: str) -> bool:
    """Tells whether there is something of a name that a stranger has chosen: it may be too long for any."""
    try:
        return Path(named).exists()
    except OSError:
        return False


def is_adapter_folder(path: Path) -> bool:
    """Tells whether a folder holds an adapter in PEFT's format."""
    try:
        return (path / CONFIG).is_file()
    except OSError:  # too long a name
        return False


def keep_adapter_folder(folder: AdapterFolder, target: Path, tokenizer: Tokenizer) -> None:
    """Copies what is read of an adapter, so that the run is independent of its folder.

    Args:
        folder: The adapter.
        target: The folder to make.
        tokenizer: The tokenizer that goes with it: its own, or the base model's.

    Raises:
        StorageError: The system refused.
    """
    own = (EXPORT_MANIFEST, VOCABULARY) if folder.manifest else ()
    names = [CONFIG, TENSORS, *(name for name in own if (folder.path / name).is_file())]
    with atomic_folder(target) as made:
        tokenizer.save(made)
        for name in names:
            shutil.copyfile(folder.path / name, made / name)


def _where_one_is(path: Path) -> str:
    """Returns what to name in place of a folder without an adapter: of a run, its export."""
    if not os.path.isfile(path / MANIFEST):  # noqa: PTH113 (of too long a name it says that there is none)
        return f"An adapter's folder has {CONFIG} and {TENSORS}."
    exports = sorted(folder for folder in (path / "exports").glob("*") if is_adapter_folder(folder))
    if exports:
        return f"It is a run's folder: name that of its export, {exports[0]}."
    return f"It is a run's folder: `toolkit export {shlex.quote(str(path))} --to peft` writes an adapter's into it."


def read_adapter_folder(path: Path, host: PluginHost, use: str | None = None, *, kept: bool = False) -> AdapterFolder:
    """Reads what an adapter in PEFT's format is; no tensor is read.

    Args:
        path: The folder.
        host: The plugins.
        use: The adapter that is to have its method; the first one that does when left out.
        kept: Whether it is a copy that `keep_adapter_folder` made, which lacks what else its manifest lists.

    Raises:
        FolderError: It is no such folder, it is damaged, its files contradict one another, or no installed adapter has
            its method.
    """
    if not is_adapter_folder(path):
        raise FolderError("there is no adapter in PEFT's format in it", where=str(path), hint=_where_one_is(path))
    if not (path / TENSORS).is_file():
        pickle = (path / "adapter_model.bin").exists()
        hint = (
            "adapter_model.bin is a pickle, which could run code: save it anew with save_pretrained." if pickle else ""
        )
        raise FolderError(f"it has no {TENSORS}", where=str(path), hint=hint)
    try:
        refuse_bad_files(path)
        check_tensor_header(path / TENSORS)
        check_adapter_config(path)
        fields, shapes = read_adapter_config(path), stored_shapes(path)
    except ExportError as error:  # which is a run's own failure elsewhere: here the request is wrong
        raise FolderError(error.message, where=error.where, hint=error.hint) from None
    except (OSError, SafetensorError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(path / TENSORS)) from None
    where = str(path / CONFIG)
    try:
        peft_targets(fields, ())  # so that whoever asks again of a model's layers knows that it can tell
        registered, options, model = _method(host, fields, use)
        config = _checked(model, options)
        found = AdapterFolder(
            path, fields, registered, options, config, (), {}, {}, _hashes(path), _manifest(path, kept=kept)
        )
        return _sorted_out(found, shapes, model.peft_prefix)
    except ValueError as error:  # a plugin's, of fields that a stranger has written
        raise FolderError(str(error), where=where, hint=_ELSEWHERE) from None


def _hashes(path: Path) -> dict[str, str]:
    return {name: sha256_of(path / name) for name in (CONFIG, TENSORS)}


def _manifest(path: Path, *, kept: bool) -> ExportManifest | None:
    """Returns graftkit's own manifest of the folder, whose files are what it lists; of a copy, those that it has."""
    if not (path / EXPORT_MANIFEST).is_file():
        return None
    manifest = ExportManifest.read(path, ("files", *TO_LOAD, *TO_REBUILD))
    if kept:
        check_listed(path, {name: facts for name, facts in manifest.files.items() if name in _KEPT})
        return manifest
    check_all_listed(path, manifest)
    check_as_the_run_lists(path)
    return manifest


def _method(
    host: PluginHost, fields: Mapping[str, Any], use: str | None
) -> tuple[RegisteredProvider, Mapping[str, Any], type[PeftFields]]:
    """Finds the adapter whose method it is. One with a preset is another one's, with sections of a recipe besides.

    Raises:
        ValueError: There is none, or it lacks an option.
    """
    own = {key: value for key, value in fields.items() if key not in _OF_CORE}
    if use is None:
        candidates = [each for group in host.registry.providers_in_turn("adapter") for each in group]
    else:
        candidates = [host.registry.resolve("adapter", use)]
    for registered in candidates:
        model = host.registry.config_class(registered)
        if not isinstance(model, PeftFields) or (use is None and model.preset):
            continue
        options = _from_peft(registered, model, own)
        if options is not None:
            return registered, options, model
    method = str(fields.get("peft_type"))[:60]
    who = f"the adapter '{use}' is not" if use else "no installed adapter is"
    raise ValueError(f"its method is PEFT's {method}, which {who}")


def _from_peft(
    registered: RegisteredProvider, model: type[PeftFields], fields: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Asks an adapter for the recipe fields of a folder.

    Raises:
        ValueError: It lacks an option.
        PluginCallError: It raised anything else.
    """
    what = f"from_peft() of its adapter '{registered.provider.name}'"
    try:
        with guarded(registered.plugin, what):
            found = model.from_peft(fields)
            return None if found is None else dict(found)
    except (GraftkitError, ValueError):
        raise
    except BaseException as error:
        if is_stop(error):
            raise
        raise PluginCallError(f"{what} raised {brief(error)}", where=registered.plugin.label) from error


def _checked(model: Any, options: Mapping[str, Any]) -> ProviderConfig:
    try:
        found: ProviderConfig = model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:100]
        raise ValueError(f"its '{key}': {first['msg'].lower()}, not {str(first['input'])[:60]}") from None
    return found


def _sorted_out(found: AdapterFolder, shapes: Mapping[str, tuple[int, ...]], prefix: str) -> AdapterFolder:
    """Finds out which tensors belong to layers, which are whole modules, and which are rows of embeddings.

    Raises:
        ValueError: A tensor is none of these, or of what adapter_config.json names there is no tensor.
    """
    layers: dict[str, None] = {}
    saved: dict[str, tuple[int, ...]] = {}
    rows: dict[str, tuple[int, ...]] = {}
    copies: list[str] = []
    names = _saved_names(found.fields)
    _check_work(shapes, names)
    saved_tied = bool(names and found.fields.get("ensure_weight_tying"))
    experts = found.expert_layouts
    held = {name for layout in experts.values() for name in layout.names}
    if not held <= shapes.keys():
        raise ValueError(
            f"its {EXPORT_MANIFEST} names experts of which there is no tensor {min(held - shapes.keys())[:120]}"
        )
    own = re.compile(rf"(.+)\.{re.escape(prefix)}[^/]*")
    for key, shape in shapes.items():
        name = key.removeprefix(PREFIX)
        if key in held:
            continue
        if not key.startswith(PREFIX):
            raise ValueError(f"the tensor '{key[:120]}' is not named as PEFT names an adapter's: {PREFIX}LAYER.TENSOR")
        if name.endswith(NEW_ROWS):
            rows[name.removesuffix(NEW_ROWS)] = _ids(found.fields, name.removesuffix(NEW_ROWS), shape)
        elif any(_inside(name, module) for module in names):
            saved[name] = shape
        elif _COPY.fullmatch(name):
            copies.append(name)
        elif match := own.fullmatch(name):
            layers[match[1]] = None
        elif saved_tied and name.endswith(".weight"):  # the other matrix, which modules_to_save need not name
            saved[name] = shape
        else:
            raise ValueError(f"the tensor '{key[:120]}' belongs to nothing that adapter_config.json names")
    lacking = [module for module in names if not any(_inside(name, module) for name in saved)]
    if found.fields.get("task_type") in ("SEQ_CLS", "TOKEN_CLS") and not {*lacking} >= _EITHER_HEAD:
        lacking = [module for module in lacking if module not in _EITHER_HEAD]
    if lacking:
        raise ValueError(f"'modules_to_save' names {lacking[0][:60]!r}, of which there is no tensor")
    if found.fields.get("trainable_token_indices") and not rows:
        raise ValueError("'trainable_token_indices' names rows, of which there is no tensor")
    if not layers and not experts:
        raise ValueError("it has no tensor of an adapted layer")
    stray = [name for name in copies if name.partition(f".{OF_BASE}")[0] not in layers]
    if stray:
        raise ValueError(f"it has the base model's tensor '{stray[0][:120]}', of a layer that it does not adapt")
    return replace(found, layers=list(layers), saved=saved, rows=rows, copies=copies)


def _check_work(shapes: Mapping[str, tuple[int, ...]], names: Sequence[str]) -> None:
    """Refuses names, and numbers of them, that no adapter has, before each is compared with each.

    Raises:
        ValueError: There are such.
    """
    longest = max(shapes, key=len, default="")
    if len(longest) > _LONGEST_NAME:
        raise ValueError(f"the tensor '{longest[:60]}...' has a name of {len(longest):,} characters")
    if len(names) * len(shapes) > _MOST_PAIRS:
        raise ValueError(f"'modules_to_save' names {len(names):,} modules, for {len(shapes):,} tensors")
    if sum(key.endswith(NEW_ROWS) for key in shapes) > _MOST_MATRICES:
        raise ValueError("it has rows of more matrices than a model has for its vocabulary")


def _inside(name: str, module: str) -> bool:
    """Tells whether a parameter lies in a module that PEFT means by the end of its path, as "norm" means "ln_norm"."""
    parts = name.split(".")
    return any(".".join(parts[:end]).endswith(module) for end in range(1, len(parts)))


def _saved_names(fields: Mapping[str, Any]) -> list[str]:
    named = fields.get("modules_to_save") or []
    if not isinstance(named, list) or not all(isinstance(name, str) and name for name in named):
        raise ValueError("its 'modules_to_save' is no list of names")
    return named


def _ids(fields: Mapping[str, Any], matrix: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the ids of the trained rows of a matrix, in the order of the rows."""
    found = list(_ids_of(fields.get("trainable_token_indices"), matrix))
    if len(shape) != 2 or len(found) != shape[0] or len(set(found)) != len(found) or min(found, default=0) < 0:
        raise ValueError(f"'trainable_token_indices' does not name the {shape[0] if shape else 0} rows of '{matrix}'")
    return tuple(found)


def _ids_of(named: Any, matrix: str) -> Iterator[int]:
    lists = [named] if isinstance(named, list) else []
    if isinstance(named, Mapping):
        lists = [ids for name, ids in named.items() if f".{matrix}".endswith(f".{name}") and isinstance(ids, list)]
    for ids in lists[:1]:
        yield from (id for id in ids if isinstance(id, int) and not isinstance(id, bool))
