"""A tokenizer is found wherever it lies, and read by the backend that it is of."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from graftkit import PluginHost, Provider, hookimpl
from graftkit.errors import ModelError, PluginError, ProviderError, RequestError
from graftkit.flow.base_files.find_tokenizer import find_tokenizer
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer


class OddTokenizer(HuggingFaceTokenizer):
    """A tokenizer of a backend of its own."""


class OddBackend:
    formats = ("odd",)

    def accepts(self, path: Path) -> bool:
        return (path / "odd.txt").exists()

    def load(self, path: Path) -> OddTokenizer:
        return OddTokenizer(tiny_tokenizer_files(), f"odd tokenizer in {path.name}")


def plugin(name: str, *providers: str) -> types.ModuleType:
    """A third party's plugin whose backends all read folders with an odd.txt."""
    module = types.ModuleType(name)
    module.OddBackend = OddBackend  # type: ignore[attr-defined]

    @hookimpl
    def graftkit_tokenizers() -> list[Provider]:
        return [Provider(name=provider, target=f"{name}:OddBackend") for provider in providers]

    module.graftkit_tokenizers = graftkit_tokenizers  # type: ignore[attr-defined]
    return module


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, types.ModuleType]]:
    made = {"odd_one": plugin("odd_one", "odd", "odder"), "odd_two": plugin("odd_two", "odd")}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made  # type: ignore[return-value]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer.json and an odd.txt."""
    for name, data in tiny_tokenizer_files().items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "odd.txt").write_text("")
    return tmp_path


def test_a_folder_and_the_file_in_it_are_the_same_tokenizer(folder: Path) -> None:
    found = [find_tokenizer(PluginHost(), str(path)) for path in (folder, folder / "tokenizer.json")]
    assert {one.registered.qualified_name for one in found} == {"graftkit:huggingface"}
    assert len({one.tokenizer.fingerprint for one in found}) == 1 and found[0].model is None


def test_of_a_models_folder_the_model_is_known_too(tiny_model: Path) -> None:
    found = find_tokenizer(PluginHost(), str(tiny_model))
    assert found.tokenizer.vocab_size == 259 and found.model is not None
    assert found.model.config["hidden_size"] == 64
    (config := tiny_model / "config.json").rename(aside := tiny_model / "aside")
    try:
        assert find_tokenizer(PluginHost(), str(tiny_model)).model is None
    finally:
        aside.rename(config)


def test_of_a_model_that_must_be_fetched_only_the_tokenizer_is(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert not local_files_only
        asked.append(allow_patterns)
        return str(folder if name == "org/name" else tmp_path_factory.mktemp("nothing"))

    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = find_tokenizer(PluginHost(), "org/name")
    assert found.tokenizer.vocab_size == 259 and found.reference == "org/name" and found.model is None
    with pytest.raises(ModelError, match="org/bare: it came without a tokenizer that a backend reads"):
        find_tokenizer(PluginHost(), "org/bare")
    assert len(asked) == 2 and not any("safetensors" in pattern for pattern in (*asked[0], *asked[1]))


@pytest.mark.real_model
def test_a_gguf_file_has_its_tokenizer_inside(smollm2: str) -> None:
    found = find_tokenizer(PluginHost(), smollm2)
    assert (found.registered.provider.name, found.tokenizer.vocab_size) == ("huggingface", 49152)
    assert found.model is not None and found.model.config["hidden_size"] == 576


def test_built_in_backends_come_first_unless_another_is_named(
    folder: Path, others: dict[str, types.ModuleType]
) -> None:
    host = PluginHost(plugins=[others["odd_one"]])
    assert find_tokenizer(host, str(folder)).registered.qualified_name == "graftkit:huggingface"
    named = find_tokenizer(host, str(folder), "odd")
    assert isinstance(named.tokenizer, OddTokenizer) and named.tokenizer.where == f"odd tokenizer in {folder.name}"


def test_another_plugins_backend_is_asked_where_no_built_in_accepts(
    folder: Path, others: dict[str, types.ModuleType]
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert find_tokenizer(PluginHost(plugins=[others["odd_one"]]), str(folder)).registered.provider.name == "odd"
    both = PluginHost(plugins=[*others.values()])
    with pytest.raises(ProviderError, match="'odd_one:odd' and 'odd_one:odder' and 'odd_two:odd' could both read"):
        find_tokenizer(both, str(folder))
    assert find_tokenizer(both, str(folder), "odd_two:odd").registered.qualified_name == "odd_two:odd"


def test_a_broken_plugin_stands_in_nobodys_way(folder: Path, others: dict[str, types.ModuleType]) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    del others["odd_two"].OddBackend
    host = PluginHost(plugins=[*others.values()])
    assert find_tokenizer(host, str(folder)).registered.qualified_name == "odd_one:odd"
    with pytest.raises(PluginError, match="has no attribute 'OddBackend'"):
        find_tokenizer(host, str(folder), "odd_two:odd")


@pytest.mark.parametrize(
    ("reference", "use", "message"),
    [
        ("nothing", None, "no such folder"),
        ("x" * 300, None, "no such folder"),
        ("empty", None, "no tokenizer backend reads it, and it is no model either"),
        ("empty", "huggingface", "the tokenizer backend 'huggingface' does not read it"),
        ("empty", "hugingface", "Did you mean 'huggingface'?"),
        ("notes.txt", None, "no tokenizer backend reads it"),
    ],
)
def test_what_is_no_tokenizer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, use: str | None, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_bytes(b"\x00\x01")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as caught:
        find_tokenizer(PluginHost(), reference, use)
    assert message in str(caught.value)


def test_a_broken_tokenizer_is_told_with_its_place(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=str(folder)):
        find_tokenizer(PluginHost(), str(folder))
