"""What public advisories report of other programs that open models: a test for each class of them."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit import PluginHost
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError, ExportError, GraftkitError, ModelError, RecipeError, StorageError
from graftkit.exporting.model_folder import TRUSTING_NOTHING
from graftkit.exporting.peft_folder import load_adapter
from graftkit.flow.answering.reload import reload
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.folders.refused_files import drop_foreign_code, refuse_bad_files, refuse_foreign_code
from graftkit.model.skeleton import build_config, build_skeleton
from graftkit.recipe.load import load_recipe
from graftkit.store.array_file import read_metadata
from graftkit.testing import TINY_CONFIG, tiny_model_folder
from graftkit_gguf.header import read_header as read_gguf
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_models.safetensors_header import read_header
from graftkit_tokenizers.huggingface import HuggingFaceBackend

Damage = Callable[[dict[str, Any]], None]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "model")


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What exists only if a stranger's code ran."""
    return tmp_path / "ran"


def code(folder: Path, ran: Path) -> None:
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")


def edit(path: Path, **changed: Any) -> None:
    data = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**data, **changed}))


class Runs:
    """A pickle that runs a function of Python's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


NAMES = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoTokenizer": ["code.Tokenizer", None]}


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_remote_code_by_configuration(model: Path, ran: Path, place: str) -> None:
    """`auto_map` in a model's folder runs its Python file: CVE-2025-66448 and CVE-2026-4944 of vLLM, whose
    `trust_remote_code=False` did not reach every place that loads something.

    A base model's is not followed, by whatever opens it; as an export the folder is refused.
    """
    code(model, ran)
    edit(model / place, auto_map=NAMES)
    files = HuggingFaceSource().open(str(model))
    build_skeleton(files.config, "the model")
    assert HuggingFaceBackend().load(model).encode("a")
    reload(str(model))
    with pytest.raises(ExportError, match="names code"):
        refuse_foreign_code(model)
    assert TRUSTING_NOTHING["trust_remote_code"] is False and not ran.exists()


def test_remote_code_by_a_nested_configuration(model: Path, ran: Path) -> None:
    """CVE-2025-66448: the class of a vision tower came from the `auto_map` of the nested `vision_config`."""
    code(model, ran)
    edit(model / "config.json", vision_config={"auto_map": NAMES, "model_type": "siglip_vision_model"})
    with pytest.raises(ExportError, match="'auto_map'"):
        refuse_foreign_code(model)
    assert not ran.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_compiled_code_by_configuration(key: str) -> None:
    """A configuration that names a repository of kernels has transformers fetch and load compiled code."""
    built = build_config({**TINY_CONFIG, key: "stranger/kernel"})
    assert built._attn_implementation != "stranger/kernel" != built._experts_implementation
    build_skeleton({**TINY_CONFIG, key: "stranger/kernel"}, "the model")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "adapter_model.bin"])
def test_pickled_weights(model: Path, ran: Path, name: str) -> None:
    """Loading weights runs code: CVE-2025-32434 of torch, in spite of `weights_only=True`; CVE-2024-3568 of
    transformers. A folder without safetensors is refused whatever else lies there.
    """
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Runs(ran)))
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        HuggingFaceSource().open(str(model))
    with pytest.raises(GraftkitError):
        reload(str(model))
    assert TRUSTING_NOTHING["use_safetensors"] is True and not ran.exists()


@pytest.mark.parametrize(
    "named",
    [
        {"peft_type": "MULTITASK_PROMPT_TUNING", "prompt_tuning_init_state_dict_path": "SECRET"},
        {"peft_type": "SHADOW", "shadow_model": "SECRET"},
        {"peft_type": "XLORA", "adapters": {"0": "SECRET"}, "hidden_size": 32},
        {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TEXT", "tokenizer_name_or_path": "SECRET"},
        {"peft_type": ["LORA"]},
        {},
    ],
    ids=["state", "model", "adapters", "tokenizer", "list", "none"],
)
def test_adapters_that_name_files_elsewhere(named: dict[str, Any], tmp_path: Path) -> None:
    """CVE-2025-32434's kind: for some methods peft opens models and pickles at the paths that adapter_config.json
    names. Such a method is refused before peft sees the folder.
    """
    edit(tmp_path / "adapter_config.json", **named)
    with pytest.raises(ExportError, match="may open files outside of the folder"):
        load_adapter(torch.nn.Linear(1, 1), tmp_path)


def test_pickled_arrays(ran: Path, tmp_path: Path) -> None:
    """CVE-2019-6446: `numpy.load` unpickled arrays of objects. Tokens are stored in files of their own form."""
    path = tmp_path / "tokens.npy"
    np.save(path, np.array([Runs(ran)], dtype=object), allow_pickle=True)
    with pytest.raises(StorageError):
        read_metadata(path)
    assert not ran.exists()


def test_no_module_of_the_project_unpickles() -> None:
    """No call of `pickle.load`, `torch.load`, `numpy.load` or `yaml.load` stands in the code, and no `eval`."""
    import ast

    root = Path(__file__).parents[2]
    refused = {("pickle", "load"), ("pickle", "loads"), ("torch", "load"), ("np", "load"), ("numpy", "load")}
    refused |= {("yaml", name) for name in ("load", "full_load", "unsafe_load")} | {("joblib", "load")}
    found = []
    for path in [*(root / "core").rglob("*.py"), *(root / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                named = (function.value.id, function.attr) in refused
            else:
                named = isinstance(function, ast.Name) and function.id in ("eval", "exec")
            found += [f"{path.relative_to(root)}:{node.lineno}"] if named else []
    # A contract pickles a provider's own object, and reads it again, in a test.
    assert [place for place in found if "testing/contracts/" not in place] == []


def test_every_process_is_started_without_the_modules_of_the_current_folder() -> None:
    """`python -m` imports from the current folder first, which may hold anybody's `graftkit.py`; `-P` forbids that."""
    root = Path(__file__).parents[2]
    sources = [path.read_text(encoding="utf-8") for part in ("core", "plugins") for path in (root / part).rglob("*.py")]
    started = [line for text in sources for line in text.splitlines() if "sys.executable" in line and '"-m"' in line]
    assert len(started) >= 5 and [line for line in started if '"-P", "-m"' not in line] == []


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/tmp/secret.safetensors", "sub/x.safetensors"])
def test_index_traversal(model: Path, name: str) -> None:
    """An index of shards, joined to the folder unchecked, opens a file anywhere on the machine."""
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ModelError, match="leaves the folder"):
        HuggingFaceSource().open(str(model))
    with pytest.raises(ExportError, match="no file's name"):
        refuse_bad_files(model)


def test_transformers_opens_what_special_tokens_map_names(model: Path, tmp_path: Path) -> None:
    """Why that file counts as a configuration: its keys replace the files of the folder (transformers 5.23)."""
    from transformers import BertTokenizerLegacy

    (tmp_path / "elsewhere.txt").write_text("[UNK]\nsecret\n")
    (model / "vocab.txt").write_text("[UNK]\nown\n")
    (model / "tokenizer.json").unlink()
    edit(model / "tokenizer_config.json", vocab_file=str(tmp_path / "elsewhere.txt"), chat_template=None)
    assert "own" in BertTokenizerLegacy.from_pretrained(model).get_vocab()
    edit(model / "special_tokens_map.json", vocab_file=str(tmp_path / "elsewhere.txt"))
    assert "secret" in BertTokenizerLegacy.from_pretrained(model).get_vocab()


@pytest.mark.parametrize("place", ["tokenizer_config.json", "special_tokens_map.json", "config.json"])
@pytest.mark.parametrize(
    "named",
    [
        *(
            {key: "SECRET"}
            for key in ("vocab_file", "merges_file", "tokenizer_file", "source_spm", "spm_file", "vocab")
        ),
        {"sp_model_kwargs": {"model_file": "SECRET"}},
        {"extra": [{"word_shape_file": "SECRET"}]},
        {"fast_tokenizer_files": ["tokenizer.json", "SECRET"]},
        {"init_inputs": ["SECRET"]},
    ],
    ids=lambda named: next(iter(named)),
)
@pytest.mark.parametrize("secret", ["/etc/passwd", "../secret", "..\\secret", "C:\\secret"])
def test_configurations_that_name_files_elsewhere(model: Path, named: dict[str, Any], place: str, secret: str) -> None:
    """CWE-22: tokenizers of transformers open what their keywords name, and sentencepiece what its own do."""
    edit(model / place, **json.loads(json.dumps(named).replace('"SECRET"', json.dumps(secret))))
    with pytest.raises(ExportError, match="leads out of the folder"):
        refuse_bad_files(model)
    drop_foreign_code(model)
    refuse_bad_files(model)
    assert json.dumps(secret) not in (model / place).read_text()


def test_a_configuration_that_names_other_weights(model: Path, ran: Path) -> None:
    """`transformers_weights` has transformers open a file of the folder whatever its form is."""
    (model / "weights.bin").write_bytes(pickle.dumps(Runs(ran)))
    edit(model / "config.json", transformers_weights="weights.bin")
    with pytest.raises(ExportError, match="'transformers_weights'"):
        refuse_bad_files(model)
    assert not ran.exists()


def test_a_vocabulary_is_no_path(model: Path) -> None:
    """Tokens are called "/" and ".." in many vocabularies, and templates begin with anything."""
    edit(model / "tokenizer_config.json", vocab=["/", ".."], merges=[["/", "a"]], eos_token="/s", vocab_file="v.json")
    before = json.loads((model / "tokenizer_config.json").read_text())
    refuse_bad_files(model)
    drop_foreign_code(model)
    assert json.loads((model / "tokenizer_config.json").read_text()) == before


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__.__builtins__.open(ran, 'w') }}",
    "{{ cycler.__init__.__globals__.os.popen('touch ' ~ ran) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['__builtins__'] }}",
    "{{ messages|map(attribute='__class__')|list|first|attr('__mro__') }}{{ ''|attr('__class__') }}",
    "{% set f = '{0.__class__.__base__}'.format %}{{ f(messages) }}",
    "{{ ('{0.__class__.__base__}'|attr('format'))(messages) }}",
    "{{ namespace(__class__=1) }}",
    "{% for m in messages %}{{ m.update({'content': 'x'}) }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('true') }}",
]


@pytest.mark.parametrize("source", ATTACKS)
def test_template_injection(source: str, ran: Path) -> None:
    """A model's chat template runs Python: CVE-2024-34359 of llama-cpp-python and CVE-2026-5760 of SGLang, without a
    sandbox; CVE-2024-56326 and CVE-2025-27516, ways out of Jinja's own by `format`.
    """
    messages = [{"role": "user", "content": "hello"}]
    try:
        text = ChatTemplate(source, {"ran": str(ran)}).render(messages, "a row")
    except (ModelError, DataError):
        text = ""
    assert "class" not in text and "root:" not in text and "builtins" not in text
    assert messages == [{"role": "user", "content": "hello"}] and not ran.exists()


@pytest.mark.parametrize(
    "source",
    ["{{ 'a' * 70000000 }}", "{% for i in range(999999999) %}{{ i }}{% endfor %}"],
)
def test_template_bombs(source: str) -> None:
    """A template that asks for too much in one step is refused as the row's fault."""
    with pytest.raises((ModelError, DataError)):
        ChatTemplate(source, {}).render([{"role": "user", "content": "hello"}], "a row")


def safetensors(header: bytes, claimed: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if claimed is None else claimed) + header + data


def test_header_bombs(tmp_path: Path) -> None:
    """A header of a hundred megabytes, or of a million tensors, costs a reader seconds and most of a gigabyte."""
    path = tmp_path / "model.safetensors"
    for claimed in (99 << 20, 1 << 62, (1 << 64) - 1):
        path.write_bytes(safetensors(b"{}", claimed))
        tracemalloc.start()
        with pytest.raises(ModelError, match="header"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()
        with pytest.raises(ExportError, match="its header claims"):
            refuse_bad_files(tmp_path)
    entry = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    path.write_bytes(safetensors(b"{" + b",".join(b'"%d":' % n + entry for n in range(100_001)) + b"}"))
    with pytest.raises(ModelError, match="at most 100,000"):
        read_header(path)


def header_of(**entry: Any) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}).encode()


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [1 << 62, 8], "data_offsets": [0, 0]},
        {"shape": [-2]},
        {"data_offsets": [0, 1 << 63]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [1 << 64, (1 << 64) + 8]},
    ],
)
def test_integer_overflow_in_safetensors(tmp_path: Path, entry: dict[str, Any]) -> None:
    """Products and sums of sizes that wrap around in 64 bits pass a reader's checks."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(header_of(**entry), data=bytes(8)))
    with pytest.raises(ModelError):
        read_header(path)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf(tensors: int = 0, keys: int = 0, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + body


def tensor(shape: tuple[int, ...], offset: int = 0, kind: int = 0, dimensions: int | None = None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return text(b"w") + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


MOST = (1 << 64) - 1
GGUF_FILES: Mapping[str, bytes] = {
    "keys": gguf(keys=MOST),
    "tensors": gguf(tensors=MOST),
    "tensors whose records wrap around": gguf(tensors=MOST // 32 + 2),
    "a key's length": gguf(keys=1, body=struct.pack("<Q", MOST)),
    "a string's length": gguf(keys=1, body=text(b"k") + struct.pack("<IQ", 8, MOST)),
    "a string's length plus one": gguf(keys=1, body=text(b"k") + struct.pack("<IQ", 8, MOST - 1)),
    "an array's count": gguf(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 0, MOST)),
    "an array's bytes": gguf(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 10, (1 << 61) + 1)),
    "an array of strings": gguf(keys=1, body=text(b"k") + struct.pack("<IIQ", 9, 8, MOST // 16)),
    "dimensions": gguf(tensors=1, body=tensor((8,), dimensions=MOST & 0xFFFFFFFF) + bytes(64)),
    "a product of dimensions": gguf(tensors=1, body=tensor((8, (1 << 61) + 1)) + bytes(64)),
    "a product that wraps to nothing": gguf(tensors=1, body=tensor((1 << 32, 1 << 32)) + bytes(64)),
    "a tensor beyond the file": gguf(tensors=1, body=tensor((1 << 20,)) + bytes(64)),
    "an offset": gguf(tensors=1, body=tensor((8,), offset=MOST - 31) + bytes(64)),
    "an alignment": gguf(keys=1, body=text(b"general.alignment") + struct.pack("<II", 4, 0x80000000) + bytes(64)),
    "no alignment": gguf(keys=1, body=text(b"general.alignment") + struct.pack("<II", 4, 0) + bytes(64)),
}


@pytest.mark.parametrize("name", GGUF_FILES)
def test_integer_overflow_in_gguf(tmp_path: Path, name: str) -> None:
    """Counts and sizes of a GGUF file that are believed: CVE-2024-21802, CVE-2024-21825, CVE-2024-21836,
    CVE-2024-23496, CVE-2024-23605, CVE-2025-53630 and CVE-2026-27940 of llama.cpp, CVE-2026-7482 of Ollama.

    Each is refused before anything of that size is read or made room for.
    """
    path = tmp_path / "stranger.gguf"
    path.write_bytes(GGUF_FILES[name])
    tracemalloc.start()
    with pytest.raises(ModelError):
        read_gguf(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "target", ["os:system", "subprocess:run", "builtins:eval", "graftkit.testing.fresh:call_fresh"]
)
@pytest.mark.parametrize("kind", ["exporter", "adapter", "quantizer", "tokenizer", "model-source"])
def test_classes_by_manifest(kind: Any, target: str) -> None:
    """CVE-2025-1550 of Keras: a model's file named module and function, which loading called."""
    with pytest.raises(GraftkitError, match="no installed plugin offers"):
        InstalledProviders(PluginHost()).make(kind, {"target": target, "config_class": "", "config": {}})


@pytest.mark.parametrize(
    "content",
    [
        "model: !!python/object/apply:os.system ['true']\n",
        "model: !!python/object/new:os.system ['true']\n",
        "model: !!python/name:os.system\n",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
    ],
)
def test_objects_in_yaml(tmp_path: Path, content: str) -> None:
    """CVE-2020-1747 and CVE-2020-14343 of PyYAML: tags made objects of Python's. Aliases that multiply go with them."""
    path = tmp_path / "job.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match="are not read"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 100_000, "9" * 50_000])
def test_json_that_exhausts_its_reader(model: Path, name: str, content: str) -> None:
    """Nesting beyond the reader's stack, and numbers that take quadratic time, end a program or hang it."""
    (model / name).write_text(content)
    with pytest.raises(GraftkitError):
        files = HuggingFaceSource().open(str(model))
        build_skeleton(files.config, "the model")
        HuggingFaceBackend().load(model)


def test_a_panic_of_a_native_library(model: Path) -> None:
    """A bad expression in a tokenizer.json ends in an exception of Rust's that `except Exception` lets pass."""
    spec = json.loads((model / "tokenizer.json").read_text())
    spec["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(?P<a"}, "content": ""}
    (model / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError):
        HuggingFaceBackend().load(model)


def test_weights_that_are_no_numbers_of_ours(model: Path) -> None:
    """What a file says of its types is checked against its bytes, before torch maps them."""
    path = model / "model.safetensors"
    size = len(path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F64"', 1))
    assert path.stat().st_size == size and torch.float64.itemsize == 8
    with pytest.raises(ModelError, match="does not take"):
        HuggingFaceSource().open(str(model))
