"""Finds the base model and the tokenizer that an adapter's folder goes with, before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from graftkit.errors import FolderError, ModelError, RequestError
from graftkit.flow.base_files.base_facts import base_facts, check_unchanged
from graftkit.flow.base_files.open_model import embedding_rows, load_tokenizer, open_model, open_named_base
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.base_files.sentence_settings import pooling_of_adapter
from graftkit.flow.folders.adapter_folder import AdapterFolder, read_adapter_folder
from graftkit.flow.planning.adapter_vocabulary import (
    change_of_folder,
    check_rows_fit,
    first_moved_id,
    tokenizer_beside,
    told_of_tokenizer,
)
from graftkit.flow.planning.head import scored_of, with_facts
from graftkit.host.host import PluginHost
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.architecture import Head, head_of, labels_of, with_head
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.offline import this_machine_alone
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.sentence_files import has_sentence_files
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.report.run_manifest import HeadFacts

__all__ = ["PlannedAdapter", "TokenizerOf", "plan_adapter"]

TokenizerOf = Literal["adapter", "base"]
"""Whose tokenizer is taken where the two differ."""

_SCORES: Mapping[object, Head] = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token", "FEATURE_EXTRACTION": "embedding"}
"""What PEFT calls the tasks of models whose heads give scores, and of those that give vectors."""

_OTHER_HEADS = frozenset(["QUESTION_ANS"])
"""What PEFT calls the tasks of models with heads that graftkit does not know."""

_ELSEWHERE = "Merge it with peft's merge_and_unload."


@dataclass(frozen=True, slots=True)
class PlannedAdapter:
    """An adapter and the base model that it goes on, before a weight is loaded.

    Attributes:
        folder: The adapter.
        adapter: What has its method.
        files: The base model.
        quantizer: Stores the base's weights.
        tokenizer: The tokenizer.
        change: What the adapter's rows make of the embeddings, or None.
        head: What is on the base in a language model's place, or None where it is one.
        dtype: The type of the products in training.
        facts: What an export's manifest says of all these.
        notices: What the user should know.
    """

    folder: AdapterFolder
    adapter: Adapter
    files: BaseModelFiles
    quantizer: Quantizer
    tokenizer: Tokenizer
    change: VocabularyChange | None
    head: HeadFacts | None
    dtype: str
    facts: Mapping[str, Any]
    notices: Sequence[str]


def plan_adapter(
    path: Path,
    host: PluginHost,
    *,
    base: str | None = None,
    quantizer: str | None = None,
    tokenizer: TokenizerOf | None = None,
    other_base: bool = False,
) -> PlannedAdapter:
    """Reads an adapter's folder, opens its base model and finds its tokenizer.

    Args:
        path: The adapter's folder.
        host: The plugins.
        base: The base model; the one that the folder names when left out, where that lies on this machine.
        quantizer: How the base's weights are stored; as in training where graftkit trained it, else as they are.
        tokenizer: Whose tokenizer is taken where the adapter's and the base model's differ.
        other_base: Whether the base model may have other files than graftkit's manifest says it was trained on.

    Raises:
        FolderError: The folder can't be read, or names no base model that lies here.
        ModelError: The base model is not the one that it was trained on, or the tokenizers differ.
    """
    folder = read_adapter_folder(path, host)
    task = folder.fields.get("task_type")
    kind = folder.manifest.head.kind if folder.manifest and folder.manifest.head else None
    if kind == "masked" or task in _OTHER_HEADS:
        raise FolderError(
            "it is of a model that fills in masked tokens, which is exported with its run alone"
            if kind
            else f"it is of a model with a head that graftkit does not know ({task})",
            where=str(path),
            hint="toolkit export RUN --to merged makes a whole model of it." if kind else _ELSEWHERE,
        )
    source, files = _base(host, folder, base)
    facts = {"model": base_facts(files), "model_source": source, **_providers(host, folder, quantizer)}
    manifest = folder.manifest
    if manifest and not other_base:
        try:
            check_unchanged(manifest.model, facts["model"])
        except ModelError as error:
            hint = "Give that base model with --base, or --other-base to take this one all the same."
            raise ModelError(error.message, where=error.where, hint=hint) from None
    change = change_of_folder(folder, embedding_rows(files))
    found, facts["tokenizer"], notices = _tokenizer(host, folder, files, tokenizer, change, known=not other_base)
    notices += check_rows_fit(folder, files, found, change)
    kind = kind or _kind_of(folder, files)
    head = _head(folder, files, found, kind) if kind else None
    files = with_facts(files, head)
    make = InstalledProviders(host).make
    return PlannedAdapter(
        folder,
        make("adapter", facts["adapter"]),
        files,
        make("quantizer", facts["quantizer"]),
        found,
        change,
        head,
        manifest.dtype if manifest else "float32",
        facts,
        notices,
    )


def _kind_of(folder: AdapterFolder, files: BaseModelFiles) -> Head | None:
    """Returns what an adapter that names no head of its own is for; None of a language model's.

    Where its task is left out, it gives vectors if sentence-transformers wrote it, or its base model has no head.
    """
    task = folder.fields.get("task_type")
    if task is None and (has_sentence_files(folder.path) or head_of(files.config) == "embedding"):
        return "embedding"
    return _SCORES.get(task)


def _head(folder: AdapterFolder, files: BaseModelFiles, tokenizer: Tokenizer, kind: Head) -> HeadFacts:
    """Returns what is on the base model of an adapter whose head gives scores.

    Labels are those of graftkit's manifest, or of a base model that is such a classifier itself; of others transformers
    says "LABEL_0" and so on, and of a single score nothing. Whether a text may have several is the base model's word.

    Raises:
        FolderError: Neither the adapter nor the base model has a head.
    """
    if folder.manifest and folder.manifest.head:
        return folder.manifest.head
    task = folder.fields.get("task_type")
    if kind == "embedding":
        return HeadFacts(kind=kind, pooled_by=pooling_of_adapter(folder.path, files))
    config = files.config if head_of(files.config) == kind else with_head(files.config, kind)
    outputs = _saved_outputs(folder, files, kind) or (len(labels_of(config)) if config is files.config else 0)
    if not outputs:
        what = "sequences" if kind == "sequence" else "tokens"
        raise FolderError(
            f"its task is to score {what} ({task}), and neither the adapter nor the base model has a head for that",
            where=str(folder.path),
            hint="Name the classifier that it was trained on with --base.",
        )
    scored = scored_of(config, outputs)
    return HeadFacts(kind=kind, labels=scored.labels, pad=tokenizer.role_token("pad"), several=scored.several)


def _saved_outputs(folder: AdapterFolder, files: BaseModelFiles, kind: Head) -> int:
    """Returns how many scores the head has that an adapter's folder holds as a whole module; 0 where it holds none.

    They are the rows of that parameter which has one row in transformers' model with a head of a single score.
    """
    if not folder.saved:
        return 0
    import torch

    from graftkit.model.head import head_modules, head_parameters
    from graftkit.model.skeleton import build_skeleton

    config = with_head(files.config, kind)
    skeleton = build_skeleton(config, files.reference, torch.float32, len(files.tensors))
    single = [
        name
        for name, parameter in head_parameters(skeleton, head_modules(skeleton)).items()
        if parameter.ndim == 2 and len(parameter) == 1
    ]
    return next((folder.saved[name][0] for name in single if len(folder.saved.get(name, ())) == 2), 0)


def _base(host: PluginHost, folder: AdapterFolder, named: str | None) -> tuple[dict[str, Any], BaseModelFiles]:
    """Opens the base model that the user names, or else the one that the folder does, on this machine alone."""
    if named is not None:
        registered, files = open_model(host, named)
        return registered.facts({}), files
    manifest = folder.manifest
    if manifest:
        with this_machine_alone():
            make, source = InstalledProviders(host).make, dict(manifest.model_source)
            return source, open_named_base(make, source, manifest.model.reference)
    reference = folder.base
    if reference is None:
        said = folder.fields.get("base_model_name_or_path")
        what = f"'{str(said)[:100]}', which is no folder here" if said else "no base model"
        hint = "Name it: --base FOLDER. Nothing is fetched because a file names it."
        raise FolderError(f"its adapter_config.json names {what}", where=str(folder.path), hint=hint)
    with this_machine_alone():
        registered, files = open_model(host, reference)
    return registered.facts({}), files


def _providers(host: PluginHost, folder: AdapterFolder, quantizer: str | None) -> dict[str, Any]:
    """Returns what a manifest says of adapter and quantizer."""
    manifest, found = folder.manifest, {}
    if manifest:
        found = {"adapter": manifest.adapter, "quantizer": manifest.quantizer}
    else:
        config = host.registry.config_class(folder.registered).model_validate(dict(folder.options))
        found["adapter"] = folder.registered.facts(config.model_dump(mode="json"))
    if quantizer or not manifest:
        registered = host.registry.resolve("quantizer", quantizer or "none", where="--quantizer" if quantizer else "")
        found["quantizer"] = registered.facts(host.registry.config_class(registered)().model_dump(mode="json"))
    return found


def _tokenizer(
    host: PluginHost,
    folder: AdapterFolder,
    files: BaseModelFiles,
    wanted: TokenizerOf | None,
    change: VocabularyChange | None,
    *,
    known: bool,
) -> tuple[Tokenizer, dict[str, Any], list[str]]:
    """Returns the tokenizer, what a manifest says of who reads it, and what the user should know.

    The adapter's own, where one lies beside it: the same as the base model's, or one that adds tokens to that. Of one
    that graftkit made that is so on the base model that it is `known` to be trained on.

    Raises:
        ModelError: It gives ids of the base another meaning, and nobody said which is to be taken.
        RequestError: The one that is wanted is not there, or is not the one that graftkit trained the adapter with.
    """
    path = folder.path
    beside = tokenizer_beside(folder, host) if wanted != "base" or folder.manifest else None
    own = dict(folder.manifest.tokenizer) if folder.manifest else beside.registered.facts({}) if beside else {}
    if folder.manifest and beside and wanted != "base" and (known or wanted):
        return beside.tokenizer, own, []
    registered = host.registry.resolve("tokenizer", files.tokenizer_backend)
    of_base = load_tokenizer(files, host.registry.create(registered))
    if folder.manifest and beside and wanted == "base" and not _alike(beside.tokenizer, of_base):
        raise RequestError(
            "graftkit trained the adapter with the tokenizer that lies beside it, and the base model's is another",
            where="--tokenizer base",
            hint="Leave it out.",
        )
    if wanted == "adapter" and not beside:
        raise RequestError("no tokenizer lies beside the adapter", where=str(path), hint="Leave --tokenizer out.")
    if beside is None:
        return of_base, registered.facts({}), []
    if beside.tokenizer.fingerprint != of_base.fingerprint and wanted is None:
        moved = first_moved_id(of_base, beside.tokenizer)
        if moved is not None:
            raise ModelError(
                f"the tokenizer beside the adapter is another than the base model's: {moved}",
                where=str(path),
                hint="Is this another base? The adapter's is taken all the same with --tokenizer adapter."
                if folder.manifest
                else "Say which it was trained with: --tokenizer adapter or --tokenizer base. Or is this another base?",
            )
        told = told_of_tokenizer(of_base, beside.tokenizer, change)
        return beside.tokenizer, own, [told]
    return beside.tokenizer, own, []


def _alike(one: Tokenizer, other: Tokenizer) -> bool:
    return (one.fingerprint, one.chat_template) == (other.fingerprint, other.chat_template)
