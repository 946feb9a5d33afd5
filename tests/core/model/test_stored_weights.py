"""Weights that a file holds quantized already: kept by the quantizer that knows them, dequantized for others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit import FrozenWeight, LayerInfo, StoredWeight, TensorInfo
from graftkit.errors import ModelError
from graftkit.model.dense_model import load_dense_model
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.model.stored_weights import check_stored_weights
from graftkit.testing import ModelSourceContract, tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.kinds import OWN_NF4
from graftkit_quantizers.nf4 import Nf4

CPU = torch.device("cpu")
DOUBLE = Nf4Config(double_quant=True, blocksize=32)


class QuantizedFiles:
    """A model whose file holds its linear layers in NF4, as a source that keeps them would give it."""

    def __init__(self, folder: Path, config: Nf4Config = DOUBLE, *, dequantizes: bool = True) -> None:
        self.files = HuggingFaceSource().open(str(folder))
        self.layers = {f"{info.path}.weight": info for info in check_base_model(self.files)}
        self.nf4, self.dequantizes = Nf4(config), dequantizes
        self.weights: dict[str, FrozenWeight] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        found = dict(self.files.tensors)
        return found | {name: TensorInfo(found[name].shape, OWN_NF4) for name in self.layers}

    def read(self) -> Iterator[tuple[str, Any]]:
        for name in self.files.tensors:
            yield name, self.tensor(name)

    def tensor(self, name: str) -> Any:
        tensor = self.files.tensor(name)
        if name not in self.layers:
            return tensor
        weight = self.weights[name] = self.nf4.quantize(tensor, self.layers[name])
        return self.stored(weight, weight.state(), tuple(tensor.shape))

    def stored(self, weight: FrozenWeight, state: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> StoredWeight:
        return StoredWeight(OWN_NF4, shape, state, weight.meta(), weight.dequantize if self.dequantizes else None)


def frozen(model: Any) -> dict[str, FrozenWeight]:
    return {f"{path}.weight": m.frozen for path, m in model.named_modules() if isinstance(m, FrozenLinear)}


@pytest.mark.parametrize("dequantizes", [True, False])
def test_nf4_keeps_what_was_stored_in_nf4_bit_for_bit(tmp_path: Path, dequantizes: bool) -> None:
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES["qwen2"])
    files: Any = QuantizedFiles(folder, dequantizes=dequantizes)
    found = frozen(load_base_model(files, Nf4(DOUBLE), device=CPU))
    assert found.keys() == files.layers.keys() and len(found) == 14
    for name, weight in found.items():
        state = files.weights[name].state()
        assert weight.meta() == files.weights[name].meta() and weight.state().keys() == state.keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in weight.state().items())
    once = load_base_model(HuggingFaceSource().open(str(folder)), Nf4(DOUBLE), device=CPU)
    ids = torch.tensor([[5, 9, 7, 7]])
    with torch.no_grad():
        logits = load_base_model(files, Nf4(DOUBLE), device=CPU)(input_ids=ids).logits
        assert torch.equal(logits, once(input_ids=ids).logits)
        torch.testing.assert_close(load_dense_model(files, Nf4(DOUBLE))(input_ids=ids).logits, logits)


def test_the_contract_compares_stored_weights_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: Any = QuantizedFiles(tiny_model_folder(tmp_path / "model"))
    ModelSourceContract().test_a_tensor_by_its_name_is_what_read_yields(files)
    keep = files.tensor
    for change, told in (
        (lambda found: replace(found, kind="another"), "its kind is another, not graftkit-nf4"),
        (lambda found: replace(found, dequantize=None), "only one of them can be dequantized"),
        (lambda found: replace(found, tensors={"codes": found.tensors["codes"]}), "it has the tensors codes, not"),
        (lambda found: replace(found, tensors={k: v + 1 for k, v in found.tensors.items()}), "its numbers are others"),
        (lambda found: found.dequantize(), "it is a Tensor, not a StoredWeight"),
    ):
        read = list(files.read())
        monkeypatch.setattr(files, "read", lambda read=read: iter(read))
        monkeypatch.setattr(files, "tensor", lambda name, change=change: changed(keep(name), change))
        with pytest.raises(AssertionError, match=told):
            ModelSourceContract().test_a_tensor_by_its_name_is_what_read_yields(files)


def changed(found: Any, change: Any) -> Any:
    return change(found) if isinstance(found, StoredWeight) else found


@pytest.mark.parametrize("quantizer", [Dense(), Int8(), Nf4(), Nf4(Nf4Config(double_quant=True))])
def test_others_are_given_the_dequantized_weight(tmp_path: Path, quantizer: Any) -> None:
    """NF4 with other blocks or scales among them: the recipe's fields hold."""
    files: Any = QuantizedFiles(tiny_model_folder(tmp_path / "model"))
    for name, weight in frozen(load_base_model(files, quantizer, device=CPU)).items():
        again = quantizer.quantize(files.weights[name].dequantize(), files.layers[name])
        assert all(torch.equal(tensor, again.state()[key]) for key, tensor in weight.state().items())
        assert weight.meta() == again.meta()


def test_a_matrix_that_the_architecture_stores_the_other_way_round_is_dequantized(tmp_path: Path) -> None:
    """GPT-2's file has `[in, out]`, in rows of which its weights were stored."""
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES["gpt2"])
    files: Any = QuantizedFiles(folder)
    for name, weight in frozen(load_base_model(files, Dense(), device=CPU)).items():
        assert torch.equal(weight.dequantize(), files.weights[name].dequantize().T)
    files = QuantizedFiles(folder, dequantizes=False)
    with pytest.raises(ModelError, match="does not take over"):
        load_base_model(files, Nf4(DOUBLE), device=CPU)


def test_a_weight_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    files: Any = QuantizedFiles(tiny_model_folder(tmp_path / "model"), dequantizes=False)
    told = r"weight' is stored as graftkit-nf4, which .* can't dequantize\nName a quantizer that keeps graftkit-nf4"
    for quantizer in (Dense(), Nf4()):
        with pytest.raises(ModelError, match=told) as caught:
            load_base_model(files, quantizer, device=CPU)
        assert caught.value.where == files.reference
        with pytest.raises(ModelError, match=told) as caught:
            check_stored_weights(files, quantizer)
        assert caught.value.where == files.reference


@pytest.mark.parametrize("dequantizes", [True, False])
def test_one_weight_of_a_kind_tells_whether_it_can_be_used(
    tmp_path: Path, dequantizes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: Any = QuantizedFiles(tiny_model_folder(tmp_path / "model"), dequantizes=dequantizes)
    read: list[str] = []
    keep = files.tensor
    monkeypatch.setattr(files, "tensor", lambda name: read.append(name) or keep(name))
    check_stored_weights(files, Nf4(DOUBLE))
    assert len(read) == 1
    check_stored_weights(files.files, Nf4(DOUBLE))
    assert len(read) == 1


def test_a_stored_weight_that_no_layer_has_is_refused_where_it_can_not_be_dequantized(tmp_path: Path) -> None:
    """The quantizer keeps the kind, but the architecture stores GPT-2's matrices the other way round."""
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES["gpt2"])
    with pytest.raises(ModelError, match=r"c_\w+.weight' is stored as graftkit-nf4"):
        check_stored_weights(QuantizedFiles(folder, dequantizes=False), Nf4(DOUBLE))  # type: ignore[arg-type]


def without_scales(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "absmax"}


def a_row_short(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor[:-1] for name, tensor in state.items()}


def not_a_number(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.float() * torch.nan if name == "absmax" else tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_scales, "proj.weight' is damaged: stored as graftkit-nf4, stored tensors .'codes'"),
        (a_row_short, r"proj.weight' is damaged: stored as graftkit-nf4, it makes a matrix \[63, 128\]"),
        (not_a_number, "proj.weight' holds NaN or infinity"),
    ],
)
def test_a_damaged_one_is_a_model_error(
    tmp_path: Path, damage: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: Any = QuantizedFiles(tiny_model_folder(tmp_path / "model"), Nf4Config(blocksize=32))
    keep = files.stored
    monkeypatch.setattr(files, "stored", lambda weight, state, shape: keep(weight, damage(state), shape))
    with pytest.raises(ModelError, match=told):
        load_base_model(files, Nf4(Nf4Config(blocksize=32)), device=CPU)


def test_a_source_that_dequantizes_to_another_shape_is_a_model_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: Any = QuantizedFiles(tiny_model_folder(tmp_path / "model"))

    def stored(weight: FrozenWeight, state: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> StoredWeight:
        return StoredWeight("something", shape, state, {}, lambda: weight.dequantize()[1:])

    monkeypatch.setattr(files, "stored", stored)
    with pytest.raises(ModelError, match="is damaged: stored as something, it makes a matrix"):
        load_base_model(files, Dense(), device=CPU)


def test_nf4_takes_over_no_kind_but_its_own() -> None:
    weight = torch.randn(4, 64)
    layer = LayerInfo("layer", "linear", 4, 64)
    own = Nf4().quantize(weight, layer)
    assert Nf4().adopt(StoredWeight("bitsandbytes-fp4", (4, 64), own.state(), own.meta()), layer) is None
    assert Nf4().adopt(StoredWeight(OWN_NF4, (4, 64), own.state(), {}), layer) is None
    found = Nf4().adopt(StoredWeight(OWN_NF4, (4, 64), own.state(), own.meta()), layer)
    assert found is not None and torch.equal(found.dequantize(), own.dequantize())
