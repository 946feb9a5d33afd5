"""Loads what a run left, to try it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from graftkit.corpus.encode import Encoder, chat_template_of
from graftkit.errors import FolderError, GraftkitError, ModelError, RequestError, named
from graftkit.flow.base_facts import base_facts, check_unchanged
from graftkit.flow.chat import options_of
from graftkit.flow.check_model import pick_device
from graftkit.flow.export_manifest import (
    EXPORT_MANIFEST,
    TO_LOAD,
    TO_REBUILD,
    ExportManifest,
    check_all_listed,
    check_listed,
    check_none_beside,
    check_tensor_header,
    listed_by_the_run,
    refuse_bad_files,
    refuse_foreign_code,
)
from graftkit.flow.new_rows import changed_config
from graftkit.flow.open_model import load_tokenizer, open_model
from graftkit.flow.place_adapter import expert_layouts, state_from_peft
from graftkit.flow.recreate import InstalledProviders, MakeProvider
from graftkit.flow.tokenizer import VOCABULARY
from graftkit.host.host import PluginHost
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.offline import this_machine_alone
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.regular_file import read_regular
from graftkit.interfaces.samples import Conversation, Message
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.context import context_length
from graftkit.model.generate import stream_greedily
from graftkit.model.grow import MakeRows, grow
from graftkit.model.load import load_base_model
from graftkit.model.originals import FileOriginals
from graftkit.report.run_manifest import BaseFacts, RunManifest, required, run_of

__all__ = ["ReloadedModel", "reload"]

_LOADED_OF_A_RUN = ("adapter/", "tokenizer/", VOCABULARY)
"""What the paths of those of a run's files start with that are loaded."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What a manifest may name: never any other attribute of torch."""

_ADAPTER_AGAIN = "Put the file back; a run that has not finished writes it again with --resume."


@dataclass(frozen=True, slots=True)
class ReloadedModel:
    """A model that answers.

    Attributes:
        network: The model.
        tokenizer: Its tokenizer.
        stop: The tokens that end an answer.
        system: The system message that it was trained with, or None.
        tools: Descriptions of the functions that it was trained with, where those were always the same.
        chat: How conversations were laid out.
        prompts: How it was asked in training: "chat" for the chat template, "plain" for the text alone.
    """

    network: Any
    tokenizer: Tokenizer
    stop: Sequence[int]
    system: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    chat: ChatOptions = field(default_factory=ChatOptions)
    prompts: Literal["chat", "plain"] = "chat"

    def stream(
        self,
        prompt: str,
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        plain: bool | None = None,
        max_new_tokens: int = 256,
    ) -> Iterator[str]:
        """Yields the answer's text as it comes.

        Args:
            prompt: What the user says.
            system: The system message; the one of the training when left out.
            tools: Descriptions of the functions that may be called, as JSON schemas; those of the training when left
                out, none where the list is empty.
            plain: Whether the text is continued as it is, without the chat template; as in training when left out.
            max_new_tokens: Tokens at most.

        Raises:
            RequestError: The prompt is empty, too long or no text, or a chat template is needed that is not there, or
                not used.
        """
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError("the prompt is not UTF-8") from None
        decoder = self.tokenizer.stream_decoder()
        ids = self.prompt(prompt, system, plain, tools)
        max_new_tokens = self._room(len(ids), max_new_tokens)
        specials = set(self.tokenizer.special_tokens.values())
        for token in stream_greedily(self.network, ids, max_new_tokens=max_new_tokens, stop=self.stop):
            yield "" if token in specials else decoder.push(token)
        yield decoder.finish()

    def _room(self, prompt: int, wanted: int) -> int:
        """Returns how many tokens an answer may have, within the model's context."""
        context = context_length(self.network.config.to_dict()) or prompt + wanted
        if prompt == 0:
            raise RequestError("the prompt is empty", hint="Give it a word.")
        if prompt >= context:
            raise RequestError(f"the prompt has {prompt} tokens; the model's context is {context}")
        return min(wanted, context - prompt)

    @property
    def asks_plainly(self) -> bool:
        """Whether a prompt is given without a chat template where nothing else is asked for."""
        return self.prompts == "plain" or self.tokenizer.chat_template is None

    def prompt(
        self,
        prompt: str,
        system: str | None = None,
        plain: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Returns the ids that the model goes on with; arguments and errors as for `stream`."""
        plain = self.asks_plainly if plain is None else plain
        if plain and (system or tools):
            what = "a system message is" if system else "tools are"
            raise RequestError(
                f"{what} laid out by the chat template, which is not used here",
                hint="Leave it out, or ask in the chat template: --chat.",
            )
        if not plain and self.tokenizer.chat_template is None:
            raise RequestError("the tokenizer has no chat template", hint="Leave --chat out.")
        rows = self.network.get_input_embeddings().num_embeddings
        encoder = Encoder(
            self.tokenizer,
            chat_template_of(self.tokenizer, options=self.chat),
            max_length=1 << 30,
            rows=rows,
            report_dropped=True,
        )
        if plain:
            return encoder.prompt(prompt)
        said = self.system if system is None else system
        turns = [Message("system", said)] if said else []
        offered = tuple(self.tools if tools is None else tools)
        return encoder.prompt(Conversation((*turns, Message("user", prompt)), "prompt", offered))


def reload(source: str, host: PluginHost | None = None) -> ReloadedModel:
    """Loads a run's folder, an export, or a base model.

    Args:
        source: Its folder, or what names a base model.
        host: The plugins; those that are installed, without those that the run's recipe leaves out, when left out.

    Raises:
        RequestError: It is none of them, or its files do not belong together.
    """
    if host is None:
        run = run_of(Path(source))
        host = PluginHost(disable_of_run=run.left_out if run else ())
    try:
        with named(source):
            return _reload(source, host, InstalledProviders(host).make)
    except GraftkitError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FolderError(f"its files are incomplete or damaged: {reason}", where=source) from error


def _reload(source: str, host: PluginHost, make: MakeProvider) -> ReloadedModel:
    folder = Path(source)
    manifest = RunManifest.read(folder)
    if manifest is not None:
        check_listed(folder, manifest.artifacts, _LOADED_OF_A_RUN)
        if manifest.artifacts:  # which are listed once the run has finished
            _check_nothing_was_added(folder, manifest.artifacts)
        with this_machine_alone():
            return _run(folder, manifest, make)
    export = ExportManifest.read(folder, ("files",)) if (folder / EXPORT_MANIFEST).is_file() else None
    if export is not None:
        refuse_foreign_code(folder)
        refuse_bad_files(folder)
        check_all_listed(folder, export)
    check_listed(folder, listed_by_the_run(folder))
    if (folder / "adapter_config.json").is_file():
        with this_machine_alone():
            return _peft(folder, _ours(folder, export, (*TO_LOAD, *TO_REBUILD)), make)
    if (folder / "adapter" / "adapter_config.json").is_file() and (folder / "base").is_dir():
        return _extended_base(folder, _ours(folder, export, TO_LOAD), host, make)
    return _model(source, export or ExportManifest(), host)


def _check_nothing_was_added(folder: Path, listed: Mapping[str, Any]) -> None:
    """Refuses what would be loaded of a run, and is not what its training left.

    Raises:
        FolderError: There is such a file.
    """
    check_none_beside(folder, listed.keys(), "tokenizer")
    if VOCABULARY not in listed and (folder / VOCABULARY).exists():
        raise FolderError(
            f"the file {VOCABULARY} is none of the run's: its manifest does not list it",
            where=str(folder),
            hint="Take it out: it would change what is loaded.",
        )


def _ours(folder: Path, export: ExportManifest | None, needed: tuple[str, ...]) -> ExportManifest:
    """Refuses an adapter that graftkit did not write, or whose manifest lacks something."""
    if export is None:
        raise FolderError("an adapter that graftkit did not write can't be tried yet", where=str(folder))
    export.require(folder, needed)
    return export


def _adapter_facts(path: Path) -> dict[str, Any]:
    """Reads what a run says of its adapter.

    Raises:
        FolderError: It is missing or damaged.
    """
    try:
        data = parse_json(read_regular(path))
    except FileNotFoundError:
        raise FolderError("it is missing", where=str(path), hint=_ADAPTER_AGAIN) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"it is damaged: it is no JSON: {error}", where=str(path), hint=_ADAPTER_AGAIN) from None
    facts = data if isinstance(data, dict) else {}
    for key, kind in (("targets", list), ("tokenizer_fingerprint", str)):
        if not isinstance(facts.get(key), kind):
            raise FolderError(f"it is damaged: it does not say '{key}'", where=str(path), hint=_ADAPTER_AGAIN)
    return facts


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads an adapter's tensors.

    Raises:
        FolderError: They are missing or damaged.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        what = "this is no regular file" if path.exists() else "it is missing"
        raise FolderError(what, where=str(path), hint=_ADAPTER_AGAIN)
    try:
        check_tensor_header(path)
        state: dict[str, torch.Tensor] = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(path), hint=_ADAPTER_AGAIN) from None
    return state


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Returns what a run says of its adapter, and the adapter's tensors.

    Raises:
        FolderError: They are missing or damaged.
    """
    return _adapter_facts(folder / "adapter" / "adapter.json"), _tensors(folder / "adapter" / "adapter.safetensors")


def _run(folder: Path, manifest: RunManifest, make: MakeProvider) -> ReloadedModel:
    if not (folder / "adapter").is_dir():
        raise FolderError(
            f"the run has no adapter yet (it is {manifest.status})",
            where=str(folder),
            hint="Run it again.",
        )
    facts, state = read_adapter(folder)
    providers, where = manifest.providers, str(folder)
    model, data = required(manifest.model, "model", where), required(manifest.data, "data", where)
    tokenizer = make("tokenizer", providers["tokenizer"]).load(folder / "tokenizer")
    _check_tokenizer(tokenizer, facts["tokenizer_fingerprint"], folder / "tokenizer")
    dtype = _DTYPES[manifest.recipe["training"]["dtype"]]
    change = _change(folder / VOCABULARY)
    seed = manifest.recipe["training"]["seed"]
    network = _adapted(providers, model, facts["targets"], tokenizer, state, dtype, make, change, seed)
    return ReloadedModel(
        network, tokenizer, manifest.stop_tokens, data.system, data.tools, options_of(data.chat), data.prompts
    )


def _peft(folder: Path, manifest: ExportManifest, make: MakeProvider) -> ReloadedModel:
    """Loads an export in PEFT's format on the base that it was trained on."""
    tensors, layouts = _tensors(folder / "adapter_model.safetensors"), expert_layouts(manifest)
    state = state_from_peft(tensors, make("adapter", manifest.adapter), manifest.targets, layouts)
    tokenizer = make("tokenizer", manifest.tokenizer).load(folder)
    _check_tokenizer(tokenizer, manifest.tokenizer_fingerprint, folder)
    dtype = _DTYPES[manifest.dtype]
    change = _change(folder / VOCABULARY)
    providers = {"model_source": manifest.model_source, "quantizer": manifest.quantizer, "adapter": manifest.adapter}
    network = _adapted(providers, manifest.model, manifest.targets, tokenizer, state, dtype, make, change)
    return _of_export(network, tokenizer, manifest.stop_tokens, manifest)


def _extended_base(folder: Path, manifest: ExportManifest, host: PluginHost, make: MakeProvider) -> ReloadedModel:
    """Loads a base that has the new vocabulary, and the plain adapter beside it."""
    _, files = open_model(host, str(folder / "base"))
    tokenizer = make("tokenizer", manifest.tokenizer).load(folder / "base")
    _check_tokenizer(tokenizer, manifest.tokenizer_fingerprint, folder / "base")
    device, quantizer = pick_device("auto"), _dense(host)
    network = load_base_model(files, quantizer, device=device)
    adapter = make("adapter", manifest.adapter)
    tensors = _tensors(folder / "adapter" / "adapter_model.safetensors")
    state = state_from_peft(tensors, adapter, manifest.targets, expert_layouts(manifest))
    originals = FileOriginals(files, quantizer, device, torch.float32)
    adapted = adapt(network, adapter, manifest.targets, seed=0, originals=originals)
    AdaptedModel(network, files.reference, files.config, tokenizer, adapter, adapted).load_adapter_state(state)
    return _of_export(network, tokenizer, manifest.stop_tokens, manifest)


def _of_export(network: Any, tokenizer: Tokenizer, stop: Sequence[int], manifest: ExportManifest) -> ReloadedModel:
    chat = options_of(manifest.chat)
    return ReloadedModel(network, tokenizer, stop, manifest.system, manifest.tools, chat, manifest.prompts)


def _dense(host: PluginHost) -> Quantizer:
    found: Quantizer = host.registry.create(host.registry.resolve("quantizer", "none"))
    return found


def _adapted(
    providers: Mapping[str, Any],
    base: BaseFacts,
    targets: Sequence[str],
    tokenizer: Tokenizer,
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    make: MakeProvider,
    change: VocabularyChange | None,
    seed: int = 0,
) -> Any:
    files = make("model-source", providers["model_source"]).open(base.reference)
    check_unchanged(base, base_facts(files))
    quantizer = make("quantizer", providers["quantizer"])
    device = pick_device("auto")
    network = load_base_model(files, quantizer, device=device, dtype=dtype)
    adapter = make("adapter", providers["adapter"])
    grown = grow(network, change, _empty_rows(change), files.reference) if change else None
    originals = FileOriginals(files, quantizer, device, dtype)
    adapted = adapt(network, adapter, targets, seed=seed, originals=originals)
    config = changed_config(files.config, change, tokenizer)
    model = AdaptedModel(network, files.reference, config, tokenizer, adapter, adapted, grown)
    model.load_adapter_state(state)
    return network


def _empty_rows(change: VocabularyChange) -> MakeRows:
    """Makes room for rows that are read afterwards."""
    return lambda weight, role: torch.zeros(len(change.ids), weight.shape[1])


def _change(path: Path) -> VocabularyChange | None:
    """Returns what became of the base model's vocabulary, where something did."""
    return VocabularyChange.from_json(parse_json(read_regular(path))) if path.is_file() else None


def _check_tokenizer(tokenizer: Tokenizer, trained_with: str, where: Path) -> None:
    """Refuses a tokenizer that an adapter was not trained with: its ids would mean other rows.

    Raises:
        ModelError: It is another one.
    """
    if tokenizer.fingerprint != trained_with:
        raise ModelError(
            f"the adapter was trained with the tokenizer {trained_with[:12]}, this one is {tokenizer.fingerprint[:12]}",
            where=str(where),
            hint="Put the tokenizer's own files back: with other ids the adapter means nothing.",
        )


def _model(source: str, manifest: ExportManifest, host: PluginHost) -> ReloadedModel:
    """Loads a base model or a merged export, unquantized."""
    _, files = open_model(host, source)
    backend = host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend))
    tokenizer = load_tokenizer(files, backend)
    eos = tokenizer.role_token("eos")
    stop = manifest.stop_tokens or ([eos] if eos is not None else [])
    if not stop:
        raise ModelError("nothing says at which token an answer ends", where=source)
    network = load_base_model(files, _dense(host), device=pick_device("auto"))
    return _of_export(network, tokenizer, stop, manifest)
