"""Base models in a Hugging Face folder, or under a hub id: config.json, safetensors, tokenizer.json."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.file_state import FileStates
from graftkit.interfaces.json_file import read_json_object, special_float
from graftkit.interfaces.model_source import TensorInfo
from graftkit.interfaces.offline import network_allowed, offline_asked
from graftkit.interfaces.references import local_path
from graftkit.interfaces.regular_file import open_regular, read_own_file, read_regular
from graftkit.interfaces.sentence_files import SENTENCE_SETTINGS, TRANSFORMER_SETTINGS, sentence_modules_in
from graftkit.tokenization.side_files import additional_templates

from graftkit_models.quantized.formats import dense_config, quantized_matrices
from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix
from graftkit_models.safetensors_header import StoredTensor, read_header

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["HuggingFaceFolder", "HuggingFaceSource"]

_MADE_HERE = ("manifest.json", "graftkit.json")
"""What lies in a run, and in an export."""
_SHOWN = 5
"""How many of what lies in a folder an error names."""
_HUB_ID = re.compile(r"(hub:)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""How transformers calls what says how images, sound and videos become a model's inputs."""
_NAMED_TEMPLATES = "additional_chat_templates/*.jinja"
_OTHER_FORMATS = ("*.model", "*.tiktoken", "vocab.*", "merges.txt", "tekken.json")
_ANY_TOKENIZER = ["config.json", *_TOKENIZER_FILES, _NAMED_TEMPLATES, *_OTHER_FORMATS]
_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    *_TOKENIZER_FILES,
    _NAMED_TEMPLATES,
    *_PROCESSOR_FILES,
    "modules.json",
    SENTENCE_SETTINGS,
    *TRANSFORMER_SETTINGS,
    "*_Pooling/config.json",
]
_INDEX = "model.safetensors.index.json"
MAX_JSON = 64 << 20


class HuggingFaceSource:
    """Opens folders, `package:NAME/FOLDER`, and hub ids (`org/name` or `hub:org/name`)."""

    def accepts(self, reference: str) -> bool:
        """Tells whether the reference is a folder or a hub id, or names no existing file."""
        if reference.startswith("hub:"):
            return True
        path = local_path(reference)
        return _is_dir(path) or (not _is_file(path) and path.suffix != ".gguf")

    def open(self, reference: str) -> HuggingFaceFolder:
        """Reads the configuration and the headers of the weights.

        Raises:
            ModelError: A file is missing, truncated or malformed, or the weights are quantized in a way that is not
                known.
        """
        folder = _place(reference)
        if _is_on_the_hub(reference, folder):
            folder = _download(reference, _FILES)
        if not _is_dir(folder):
            hint = "Name a model's folder, a .gguf file, package:NAME/FILE, or a hub's id."
            raise ModelError("no such folder", where=reference, hint=hint)
        path = folder / "config.json"
        before = FileStates.of([path] if _is_file(path) else [])  # what is no file is refused as it is read
        config = _read_config(folder)
        stored, states = _read_index(folder, before)
        _refuse_other_weights(folder, config)
        matrices = quantized_matrices(config, str(folder / "config.json"), stored)
        return HuggingFaceFolder(reference, folder, dense_config(config), stored, matrices, states)

    def fetch_tokenizer(self, reference: str) -> Path | None:
        """Fetches a tokenizer's files and the configuration from the hub.

        Raises:
            ModelError: The hub has no such model, or can't be reached.
        """
        return _download(reference, _ANY_TOKENIZER) if _is_on_the_hub(reference, _place(reference)) else None


def _refuse_other_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses a model that transformers computes with other weights than those that are read here.

    An adapter that lies beside it is built onto it, unasked, and `transformers_weights` names another file: an adapter
    that is trained on what is read here would be loaded on another model.
    """
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        raise ModelError(
            "an adapter lies beside the model: transformers would load the model with it, other programs without",
            where=str(adapter),
            hint="Move adapter_config.json and adapter_model.safetensors to a folder of their own; to train on with "
            "that adapter, name it: adapter: {from: FOLDER}.",
        )
    if config.get("transformers_weights"):
        raise ModelError(
            "'transformers_weights' names the file of weights that transformers would load; others load "
            "model.safetensors",
            where=str(folder / "config.json"),
            hint="Put the weights that are meant into model.safetensors, and take the key out.",
        )


_MOST_OF_A_CARD = 4 << 20
_FRONT_MATTER = re.compile(r"---\r?\n(.{0,65536}?)\r?\n---", re.DOTALL)
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([a-z0-9][a-z0-9.+-]{0,39})[\"']?[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True)
class HuggingFaceFolder:
    """A folder whose headers have been checked.

    Attributes:
        reference: What the recipe said.
        folder: Where it lies.
        config: Its config.json, without what it says of quantization.
        stored: The files' own tensors.
        matrices: Those that several of them make, quantized, by name.
        states: What tells whether the files are still those that were opened.
    """

    reference: str
    folder: Path
    config: Mapping[str, Any]
    stored: FileTensors
    matrices: Mapping[str, QuantizedMatrix]
    states: FileStates

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor's shape and stored type, in the files' order."""
        headers = self.stored.headers
        return {
            name: TensorInfo(matrix.shape, matrix.kind, matrix.nbytes, by_matrix=matrix.by_matrix)
            if (matrix := self.matrices.get(name))
            else TensorInfo(headers[name].shape, headers[name].dtype)
            for own in headers
            if (name := self._names.get(own, None if own in self._parts else own)) is not None
        }

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The name of the matrix that begins with a tensor, by that tensor's name."""
        return {next(iter(matrix.parts.values())): name for name, matrix in self.matrices.items()}

    @cached_property
    def _parts(self) -> frozenset[str]:
        """The names of the tensors that matrices are made of."""
        return frozenset(name for matrix in self.matrices.values() for name in matrix.parts.values())

    @property
    def tokenizer_backend(self) -> str:
        """The provider that reads its tokenizer: "huggingface", or "sentencepiece" where there is only such a model."""
        has_json = (self.folder / "tokenizer.json").is_file()
        return "sentencepiece" if not has_json and _is_sentencepiece(self.folder / "tokenizer.model") else "huggingface"

    @property
    def files(self) -> tuple[Path, ...]:
        """The configuration and the weights."""
        return (self.folder / "config.json", *sorted(set(self.stored.places.values())))

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The generation_config.json, empty where there is none.

        Raises:
            ModelError: It is no JSON object.
        """
        path = self.folder / "generation_config.json"
        return _read_json(path) if _is_file(path) else {}

    @property
    def processors(self) -> Mapping[str, Mapping[str, Any]]:
        """What says how images, sound and videos become its inputs, by the files' names.

        Raises:
            ModelError: One is no JSON object.
        """
        paths = (self.folder / name for name in _PROCESSOR_FILES)
        return {path.name: _read_json(path) for path in paths if _is_file(path)}

    @property
    def sentence_modules(self) -> Mapping[str, Mapping[str, Any]]:
        """What sentence-transformers does with its hidden states, by the modules' types; empty without a modules.json.

        Raises:
            ModelError: One of its files is no JSON of the kind that it is to be.
        """
        return sentence_modules_in(self.folder, ModelError)

    @property
    def license(self) -> str | None:
        """The license that the front matter of its README.md names, or None."""
        try:
            text = read_regular(self.folder / "README.md", _MOST_OF_A_CARD).decode()
        except (OSError, ValueError):
            return None
        matter = _FRONT_MATTER.match(text)
        found = _LICENSE.search(matter[1]) if matter else None
        return found[1] if found else None

    def check_unchanged(self) -> None:
        """Makes sure that configuration and weights are still the files that were opened.

        Raises:
            ModelError: One isn't, or is gone.
        """
        self.states.check()

    def read(self) -> Iterator[tuple[str, torch.Tensor | StoredWeight]]:
        """Yields each tensor by name, in the files' order, one in memory at a time.

        Raises:
            ModelError: A tensor can't be read.
        """
        for path in sorted(set(self.stored.places.values())):
            with _opened(path, self.states) as file:
                for own in file.keys():  # noqa: SIM118
                    if own in self._names:
                        yield self._names[own], self._matrix(self._names[own])
                    elif own not in self._parts:
                        yield own, _tensor(file, own)

    def tensor(self, name: str) -> torch.Tensor | StoredWeight:
        """Returns one tensor, as `read` yields it.

        Raises:
            ModelError: There is no tensor of this name, or it can't be read.
        """
        if name not in self.tensors:
            raise ModelError(f"there is no tensor '{name}'", where=self.reference, hint="`tensors` has their names.")
        return self._matrix(name) if name in self.matrices else self._own(name)

    def _own(self, name: str) -> torch.Tensor:
        with _opened(self.stored.places[name], self.states) as file:
            return _tensor(file, name)

    def _matrix(self, name: str) -> StoredWeight:
        matrix = self.matrices[name]
        try:
            return matrix.store({part: self._own(own) for part, own in matrix.parts.items()})
        except ValueError as error:
            raise ModelError(
                f"tensor '{name}' is damaged: stored as {matrix.kind}, {error}",
                where=self.reference,
                hint="Download it again.",
            ) from None

    def save_tokenizer(self, folder: Path) -> None:
        """Copies the tokenizer's files.

        Raises:
            ModelError: There is no tokenizer.json, and no SentencePiece model either.
        """
        if self.tokenizer_backend == "huggingface" and not (self.folder / "tokenizer.json").is_file():
            others = [name for name in ("tokenizer.model", "vocab.txt", "vocab.json") if (self.folder / name).exists()]
            found = f" (there is {', '.join(others)})" if others else ""
            raise ModelError(
                f"no tokenizer.json{found}",
                where=str(self.folder),
                hint="Convert it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one.",
            )
        for name in (*_TOKENIZER_FILES, *additional_templates(self.folder)):
            if (self.folder / name).is_file():
                try:
                    data = read_own_file(self.folder / name)
                except OSError as error:
                    raise ModelError(f"{name} can't be copied: {error.strerror}", where=str(self.folder)) from error
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(data)


@contextmanager
def _opened(path: Path, states: FileStates) -> Iterator[Any]:
    """Opens a safetensors file; what it raises meanwhile becomes a ModelError.

    It must be the one whose header was read, and must still be when it has been read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        states.check(path)
        open_regular(path).close()  # a pipe that has come into its place would be waited for
        with safe_open(path, framework="pt") as file:
            yield file
        states.check(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"can't be read: {error}", where=str(path)) from error


def _tensor(file: Any, name: str) -> torch.Tensor:
    """Returns a tensor of an opened file, float32 where it is stored in double precision."""
    tensor: torch.Tensor = file.get_tensor(name)
    double = tensor.is_floating_point() and tensor.itemsize == 8
    return tensor.float() if double else tensor


def _is_sentencepiece(path: Path) -> bool:
    """Tells from its first byte whether a file is a SentencePiece model; tiktoken files have the same name."""
    try:
        with open_regular(path) as file:
            return file.read(1) == b"\x0a"
    except OSError:
        return False


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, a folder that may not be looked into
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _place(reference: str) -> Path:
    return Path(reference) if reference.startswith("hub:") else local_path(reference)


def _is_on_the_hub(reference: str, place: Path) -> bool:
    """Tells whether a reference is a hub's id, and not a path here.

    Raises:
        ModelError: It may be a path with a typing error: a run or an export of nearly that name lies there.
    """
    if _is_dir(place) or _is_file(place) or _HUB_ID.fullmatch(reference) is None:
        return False
    found = [] if reference.startswith("hub:") else _made_in(place.parent)
    near = difflib.get_close_matches(place.name, found, n=1)
    if near:
        raise ModelError(
            f"no such folder: {place.parent} has none of that name",
            where=reference,
            hint=f"Did you mean {near[0]!r}? The hub's model of that name is hub:{reference}.",
        )
    return True


def _made_in(folder: Path) -> list[str]:
    """Returns the names of the runs and exports that lie in a folder."""
    try:
        return sorted({path.parent.name for name in _MADE_HERE for path in folder.glob(f"*/{name}")})
    except OSError:
        return []


def _download(reference: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    hub_id = reference.removeprefix("hub:")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=not network_allowed()))
    except Exception as error:
        if offline_asked():
            raise ModelError(
                "it is not on this machine, and nothing is fetched, since offline was asked for",
                where=hub_id,
                hint=f"Fetch it where there is a network: hf download {hub_id}",
            ) from error
        if not network_allowed():
            raise ModelError(
                "it is not on this machine, and nothing is fetched because a file names it",
                where=hub_id,
                hint=f"If you trust that name: toolkit generate hub:{hub_id} HELLO   fetches it.",
            ) from error
        raise ModelError(
            f"neither a folder here nor to be had from the hub: {' '.join(str(error).split())[:300]}",
            where=hub_id,
            hint="Check the name; a folder's path may be written ./like/this.",
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    made = [] if path.exists() else _made_in(folder)
    named = f"Name one of what lies in it: {', '.join(made[:_SHOWN])}{', ...' if len(made) > _SHOWN else ''}."
    holds = "A model's folder holds config.json, *.safetensors and tokenizer.json."
    config = _read_json(path, named if made else holds)
    if not isinstance(config.get("model_type"), str):
        raise ModelError("it has no model_type", where=str(path))
    if not isinstance(text_settings(config).get("model_type", ""), str):
        raise ModelError("the model_type in its text_config is no text", where=str(path))
    return config


def _read_json(path: Path, missing: str = "") -> dict[str, Any]:
    return read_json_object(path, MAX_JSON, ModelError, missing=missing, object_hook=special_float)


def _read_index(folder: Path, config: FileStates) -> tuple[FileTensors, FileStates]:
    """Reads the headers of all files of weights; their states are asked for before, and stand beside the config's."""
    headers: dict[str, StoredTensor] = {}
    places: dict[str, Path] = {}
    files, weight_map = _weight_files(folder)
    states = FileStates({**config.states, **FileStates.of(files).states})
    for path in files:
        for name, stored in read_header(path).items():
            if name in places:
                raise ModelError(f"tensor '{name}' is also in {places[name].name}", where=str(path))
            headers[name], places[name] = stored, path
    if weight_map is not None:
        _check_index(folder, weight_map, places)
    if not headers:
        raise ModelError("there is no tensor in its weights", where=str(folder))
    return FileTensors(headers, places), states


def _check_index(folder: Path, named: Mapping[str, str], places: Mapping[str, Path]) -> None:
    """Compares the index with the shards' own headers."""
    stored = {name: path.name for name, path in places.items()}
    odd = sorted(name for name in stored.keys() | named.keys() if stored.get(name) != named.get(name))
    if odd:
        raise ModelError(
            f"it puts '{odd[0]}' into {named.get(odd[0], 'no shard')}; it lies in {stored.get(odd[0], 'none')}",
            where=str(folder / _INDEX),
            hint="Index and shards do not belong together: download them again.",
        )


def _weight_files(folder: Path) -> tuple[list[Path], Mapping[str, str] | None]:
    """Returns the single file of weights, or the shards that the index names, and the index.

    Where both are there, the one file is the model, as it is to transformers and peft: what is beside it was left by
    another save.
    """
    single, index = folder / "model.safetensors", folder / _INDEX
    if _is_file(single):
        return [single], None
    if not index.exists():
        others = sorted(path.name for path in folder.glob("*.bin"))
        found = f" (there is {', '.join(others[:3])}: pickles are never loaded)" if others else ""
        raise ModelError(f"there is no model.safetensors{found}", where=str(folder))
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError("its weight_map is malformed", where=str(index))
    names = sorted(set(weight_map.values()))
    if any(Path(name).name != name for name in names):
        raise ModelError("its weight_map leaves the folder", where=str(index))
    missing = [name for name in names if not _is_file(folder / name)]
    if missing:
        raise ModelError(f"the shard {missing[0]} is missing", where=str(folder), hint="Download it again.")
    return [folder / name for name in names], weight_map
