"""Base models in a Hugging Face folder, or under a hub id: config.json, safetensors, tokenizer.json."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.model_source import INTEGERS, TensorInfo
from graftkit.interfaces.offline import network_allowed
from graftkit.interfaces.references import local_path
from graftkit.interfaces.regular_file import open_regular, read_regular
from graftkit.interfaces.temporary import is_no_room
from graftkit.tokenization.side_files import additional_templates

from graftkit_models.safetensors_header import read_header

if TYPE_CHECKING:
    import torch

__all__ = ["HuggingFaceFolder", "HuggingFaceSource"]

_HUB_ID = re.compile(r"(hub:)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGER_BUFFER = re.compile(r"attn(\.attention)?\.bias$|attention\.bias$|causal_mask$|position_ids$|tid2eid$")
"""Names of integer tensors that are no weights: causal masks, positions, routing tables."""
_QUANTIZED = ("quantization_config", "compression_config", "quantization")
"""Keys of a configuration under which programs say how weights are stored; the last is MLX's."""
_METHODS = {
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes' NF4, FP4 or int8",
    "compressed-tensors": "that of llm-compressor",
    "fp8": "FP8 in blocks",
    "gptq": "GPTQ",
    "mxfp4": "MXFP4",
}
"""The formats that models are most often stored in, by the name that transformers gives them."""
_SPECIAL_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
_NAMED_TEMPLATES = "additional_chat_templates/*.jinja"
_OTHER_FORMATS = ("*.model", "*.tiktoken", "vocab.*", "merges.txt", "tekken.json")
_ANY_TOKENIZER = ["config.json", *_TOKENIZER_FILES, _NAMED_TEMPLATES, *_OTHER_FORMATS]
_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", *_TOKENIZER_FILES, _NAMED_TEMPLATES]
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
            ModelError: A file is missing, truncated or malformed, or the weights are already quantized.
        """
        folder = _place(reference)
        if _is_on_the_hub(reference, folder):
            folder = _download(reference, _FILES)
        if not _is_dir(folder):
            raise ModelError("no such folder", where=reference, hint="`model` names the base model.")
        config = _read_config(folder)
        tensors, places = _read_index(folder)
        _refuse_quantized(folder, config, tensors, places)
        return HuggingFaceFolder(reference, folder, config, tensors, places)

    def fetch_tokenizer(self, reference: str) -> Path | None:
        """Fetches a tokenizer's files and the configuration from the hub.

        Raises:
            ModelError: The hub has no such model, or can't be reached.
        """
        return _download(reference, _ANY_TOKENIZER) if _is_on_the_hub(reference, _place(reference)) else None


_MOST_OF_A_CARD = 4 << 20
_FRONT_MATTER = re.compile(r"---\r?\n(.{0,65536}?)\r?\n---", re.DOTALL)
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([a-z0-9][a-z0-9.+-]{0,39})[\"']?[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HuggingFaceFolder:
    """A folder whose headers have been checked.

    Attributes:
        reference: What the recipe said.
        folder: Where it lies.
        config: Its config.json.
        tensors: Every tensor's shape and stored type.
        places: The file that each tensor lies in.
    """

    reference: str
    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    places: Mapping[str, Path]

    @property
    def tokenizer_backend(self) -> str:
        """The provider that reads its tokenizer: "huggingface", or "sentencepiece" where there is only such a model."""
        has_json = (self.folder / "tokenizer.json").is_file()
        return "sentencepiece" if not has_json and _is_sentencepiece(self.folder / "tokenizer.model") else "huggingface"

    @property
    def files(self) -> tuple[Path, ...]:
        """The configuration and the weights."""
        return (self.folder / "config.json", *sorted(set(self.places.values())))

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The generation_config.json, empty where there is none.

        Raises:
            ModelError: It is no JSON object.
        """
        path = self.folder / "generation_config.json"
        return _read_json(path, "") if _is_file(path) else {}

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

    def read(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields each tensor by name, in the files' order, one in memory at a time.

        Raises:
            ModelError: A tensor can't be read.
        """
        for path in sorted(set(self.places.values())):
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118
                    yield name, _tensor(file, name)

    def tensor(self, name: str) -> torch.Tensor:
        """Returns one tensor, as `read` yields it.

        Raises:
            ModelError: There is no tensor of this name, or it can't be read.
        """
        if name not in self.places:
            raise ModelError(f"there is no tensor '{name}'", where=self.reference, hint="`tensors` has their names.")
        with _opened(self.places[name]) as file:
            return _tensor(file, name)

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
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(self.folder / name, folder / name)
                except OSError as error:
                    if is_no_room(error):  # which is not this folder's fault
                        raise
                    raise ModelError(f"{name} can't be copied: {error.strerror}", where=str(self.folder)) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file; what it raises meanwhile becomes a ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()  # a pipe that has come into its place would be waited for
        with safe_open(path, framework="pt") as file:
            yield file
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
    return not (_is_dir(place) or _is_file(place)) and _HUB_ID.fullmatch(reference) is not None


def _download(reference: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    hub_id = reference.removeprefix("hub:")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=not network_allowed()))
    except Exception as error:
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
    config = _read_json(path, "A model's folder holds config.json, *.safetensors and tokenizer.json.")
    if not isinstance(config.get("model_type"), str):
        raise ModelError("it has no model_type", where=str(path))
    return config


def _refuse_quantized(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], places: Mapping[str, Path]
) -> None:
    """Refuses weights that are no floating point numbers, and names the format: none of them can be dequantized here.

    Raises:
        ModelError: There are such tensors, or the configuration says so.
    """
    odd = next((name for name, info in tensors.items() if not _is_plain(name, info)), None)
    type_ = f"tensor '{odd}' is of type {tensors[odd].dtype}" if odd else ""
    said = _quantization(config)
    if said is not None:
        raise ModelError(
            f"{said}{f', {type_}' if type_ else ''}: the weights are already quantized",
            where=str(folder / "config.json"),
            hint="Give the unquantized model that it was made of; `quantizer:` in the recipe stores it in fewer bits.",
        )
    if odd is not None:
        raise ModelError(
            f"{type_}: the weights are already quantized",
            where=str(places[odd]),
            hint="Give the unquantized model.",
        )


def _is_plain(name: str, info: TensorInfo) -> bool:
    return info.dtype in _FLOATS or (info.dtype in INTEGERS and _INTEGER_BUFFER.search(name) is not None)


def _quantization(config: Mapping[str, Any]) -> str | None:
    """Says what a configuration, or a part of it, such as that of a multimodal model's text, calls its quantization."""
    parts = [("", config), *((f"{key}.", part) for key, part in config.items() if isinstance(part, dict))]
    for prefix, part in parts:
        for key in _QUANTIZED:
            found = part.get(key)
            if found:
                method = found.get("quant_method") if isinstance(found, dict) else None
                if not isinstance(method, str):
                    return f"{prefix}{key} names no format that is known"
                what = f", which is {_METHODS[method]}" if method in _METHODS else ""
                return f"{prefix}{key}.quant_method is {method[:40]!r}{what}"
    return None


def _decoded(value: dict[str, Any]) -> Any:
    """Returns a number in the place of `{"__float__": "Infinity"}`, which transformers 5 writes for what JSON lacks."""
    tag = value.get("__float__")
    return _SPECIAL_FLOATS.get(tag, value) if isinstance(tag, str) and len(value) == 1 else value


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    try:
        data = parse_json(read_regular(path, MAX_JSON), object_hook=_decoded)
    except FileNotFoundError:
        raise ModelError(f"there is no {path.name}", where=str(path.parent), hint=hint) from None
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"no JSON: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise ModelError("no JSON object", where=str(path))
    return data


def _read_index(folder: Path) -> tuple[dict[str, TensorInfo], dict[str, Path]]:
    tensors: dict[str, TensorInfo] = {}
    places: dict[str, Path] = {}
    files, weight_map = _weight_files(folder)
    for path in files:
        for name, stored in read_header(path).items():
            if name in places:
                raise ModelError(f"tensor '{name}' is also in {places[name].name}", where=str(path))
            tensors[name], places[name] = TensorInfo(stored.shape, stored.dtype), path
    if weight_map is not None:
        _check_index(folder, weight_map, places)
    if not tensors:
        raise ModelError("there is no tensor in its weights", where=str(folder))
    return tensors, places


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
    weight_map = _read_json(index, "").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError("its weight_map is malformed", where=str(index))
    names = sorted(set(weight_map.values()))
    if any(Path(name).name != name for name in names):
        raise ModelError("its weight_map leaves the folder", where=str(index))
    missing = [name for name in names if not _is_file(folder / name)]
    if missing:
        raise ModelError(f"the shard {missing[0]} is missing", where=str(folder), hint="Download it again.")
    return [folder / name for name in names], weight_map
