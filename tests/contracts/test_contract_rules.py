"""How contracts are written, what may be left out of them, and what they are made with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import graftkit
import graftkit.testing
import pytest
from graftkit import Provider, hookimpl
from graftkit.errors import PluginError, ProviderError
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, OF_THE_MANIFEST
from graftkit.interfaces.kinds import KINDS
from graftkit.interfaces.samples import Completion, Conversation, Text
from graftkit.testing import QuantizerContract, TokenizerContract, deviates, isolated_host, tiny_records
from graftkit.testing.records import read_samples


def test_replacing_a_promise_without_a_reason_is_an_error_that_names_it() -> None:
    with pytest.raises(TypeError, match=r"TestMine\.test_what_is_no_matrix_is_refused replaces .* without a reason"):

        class TestMine(QuantizerContract):
            provider = "none"

            def test_what_is_no_matrix_is_refused(self) -> None: ...


def test_neither_a_mixin_nor_none_gets_around_it() -> None:
    class Mixin:
        def test_what_is_no_matrix_is_refused(self) -> None: ...

    with pytest.raises(TypeError, match="without a reason"):
        type("TestMine", (Mixin, QuantizerContract), {})
    with pytest.raises(TypeError, match="without a reason"):
        type("TestMine", (QuantizerContract,), {"test_nbytes_is_the_size_of_the_state": None})


def test_a_deviation_with_a_reason_is_allowed_and_inherited() -> None:
    class TestMine(QuantizerContract):
        @deviates("it stores three-dimensional weights too")
        def test_what_is_no_matrix_is_refused(self) -> None: ...

    class TestMore(TestMine):
        def test_of_my_own(self) -> None: ...

    assert TestMore.test_what_is_no_matrix_is_refused.deviation == "it stores three-dimensional weights too"


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_a_deviation_needs_a_reason(reason: str) -> None:
    with pytest.raises(ValueError, match="say why"):
        deviates(reason)


def test_a_contract_without_a_provider_says_what_to_write() -> None:
    class TestMine(QuantizerContract): ...

    with pytest.raises(TypeError, match='TestMine says no provider: write provider = "its-name"'):
        TestMine().make()


def test_an_unknown_provider_is_named_with_those_there_are() -> None:
    class TestMine(TokenizerContract):
        provider = "hugingface"

    with pytest.raises(ProviderError, match="no tokenizer is called 'hugingface'"):
        TestMine().make()


@pytest.mark.parametrize("names", ["", ".tiny_records, t.isolated_host, t.tiny_model_folder, t.TINY_SHAPES"])
def test_importing_the_package_loads_neither_pytest_nor_torch(names: str) -> None:
    code = (
        f"import sys, graftkit.testing as t; t{names}; print({{'torch', 'pytest', 'transformers'}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(graftkit.testing, name) is not None for name in graftkit.testing.__all__)
    assert dir(graftkit.testing) == graftkit.testing.__all__
    with pytest.raises(AttributeError, match="no attribute 'QuantiserContract'"):
        _ = graftkit.testing.QuantiserContract


class Offering:
    @hookimpl
    def graftkit_quantizers(self) -> list[Provider]:
        return [Provider(name="ternary", target="nowhere:Ternary")]


def test_an_isolated_host_has_the_built_ins_and_what_it_is_given() -> None:
    host = isolated_host(Offering())
    assert {registered.provider.name for registered in host.registry.providers("quantizer")} == {
        "none",
        "nf4",
        "int8",
        "stored",
        "ternary",
    }
    assert {record.distribution for record in host.records} == {""}
    assert {registered.kind for registered in isolated_host().registry.providers()} == {*KINDS}
    with pytest.raises(PluginError, match="failed to load"):
        isolated_host(SimpleNamespace(graftkit_quantizers=hookimpl(lambda: None)))


def test_tiny_records_are_records_of_each_shape(tmp_path: Path) -> None:
    for kind, shape in (("chat", Conversation), ("completion", Completion), ("text", Text)):
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in tiny_records(kind, 5)))
        rows = read_samples(path)
        assert [type(row) for row in rows] == [shape] * 5
        assert len({json.dumps(row.key()) for row in rows}) == 5


def test_a_contract_that_a_provider_ships_is_given_as_a_target() -> None:
    provider = Provider(name="a", target="a.b:C", contract="a.contract:AContract")
    assert provider.contract == "a.contract:AContract"
    with pytest.raises(ValueError, match="contract 'AContract' is not of the form"):
        Provider(name="a", target="a.b:C", contract="AContract")


def test_no_exporters_fact_may_have_the_name_of_one_of_a_manifests(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "records.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in tiny_records("completion", 9)))
    training = {"steps": 1, "tokens_per_step": 64, "device": "cpu"}
    recipe = {"model": str(tiny_model), "data": {"train": str(rows)}, "training": training, "export": ["merged"]}
    proof = {"status": "not possible", "reason": "it takes seconds"}
    monkeypatch.setattr("graftkit.flow.exports.proof.prove", lambda *_, **__: proof)
    result = graftkit.run(recipe, out=tmp_path / "run")
    manifest = json.loads((result.exports["merged"] / EXPORT_MANIFEST).read_bytes())
    of_others = {"adapter_from", "head", "replacing"}  # adapters from elsewhere; heads; files that are being replaced
    assert manifest.keys() - {"format", "stored_dtype", "bytes"} == OF_THE_MANIFEST - of_others


def test_options_that_the_provider_does_not_know_are_told_as_in_a_recipe() -> None:
    from graftkit.errors import RecipeError
    from graftkit.testing import QuantizerContract

    class Mine(QuantizerContract):
        provider = "nf4"
        options = {"bits": 3}

    with pytest.raises(RecipeError, match=r"unknown key 'bits'(.|\n)*Known: blocksize, double_quant"):
        Mine().make()
