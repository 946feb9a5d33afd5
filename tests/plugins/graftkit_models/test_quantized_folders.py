"""Folders that are quantized already, compared with the formats' own formula and with transformers' loader."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import QuantState, dequantize_blockwise
from graftkit import LayerInfo, StoredWeight
from graftkit.errors import ModelError
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.stored_weights import check_stored_weights
from graftkit.testing import ModelSourceContract, tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_models.quantized.bitsandbytes import CONV1D
from graftkit_models.quantized.formats import quantized_matrices
from graftkit_models.quantized.matrix import Settings
from graftkit_models.quantized.scaled_weight import ScaledLayout, ScaledWeight
from graftkit_models.quantized.stored import stored_weight
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8Weight
from graftkit_quantizers.nf4 import Nf4, Nf4Weight
from graftkit_quantizers.stored import Stored
from quantized_files import (
    BITSANDBYTES,
    FORMATS,
    INT4,
    bitsandbytes_folder,
    compressed,
    gptq,
    packed_integers,
    quantized_folder,
)
from safetensors.torch import load_file, save_file

SOURCE = HuggingFaceSource()
CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 7, 7, 3, 60, 2]])


def frozen(model: Any) -> dict[str, Any]:
    return {f"{path}.weight": m.frozen for path, m in model.named_modules() if isinstance(m, FrozenLinear)}


def transformers_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("form", FORMATS)
def test_every_number_is_what_the_format_says(form: str, tmp_path: Path) -> None:
    """Dequantized, and kept as it lies; in the bytes that were foretold."""
    settings, pack, kind = FORMATS[form]
    expected = quantized_folder(tmp_path / "m", settings, pack)
    files = SOURCE.open(str(tmp_path / "m"))
    assert files.tensors.keys() == expected.keys() and "quantization_config" not in files.config
    for name, found in files.read():
        assert files.tensors[name].shape == tuple(expected[name].shape)
        if isinstance(found, StoredWeight):
            assert found.kind == kind and found.dequantize is not None
            assert torch.equal(found.dequantize(), expected[name]), name
    layers = frozen(load_base_model(files, Stored(), device=CPU))
    assert len(layers) == 14
    for name, weight in layers.items():
        assert torch.equal(weight.dequantize(), expected[name]), name
        assert weight.nbytes == files.tensors[name].nbytes
        assert weight.nbytes < expected[name].numel() * 2
    ModelSourceContract().test_a_weight_that_is_kept_as_it_lies_computes_what_its_source_dequantizes(files)
    ModelSourceContract().test_a_tensor_by_its_name_is_what_read_yields(files)


@pytest.mark.parametrize("form", ["fp8-powers", "fp8-matrix"])
def test_fp8_computes_what_transformers_computes(form: str, tmp_path: Path) -> None:
    quantized_folder(tmp_path / "m", *FORMATS[form][:2])
    files = SOURCE.open(str(tmp_path / "m"))
    with torch.no_grad():
        theirs = transformers_model(tmp_path / "m")(input_ids=IDS).logits
        for quantizer in (Stored(), Dense()):
            assert torch.equal(load_base_model(files, quantizer, device=CPU)(input_ids=IDS).logits, theirs)


def test_experts_that_the_architecture_puts_together_are_dequantized_and_counted(tmp_path: Path) -> None:
    """The folder has each expert's matrices, the architecture a stack of gate and up: what transformers loads, too."""
    settings, pack, _ = FORMATS["fp8-powers"]
    quantized_folder(tmp_path / "m", settings, pack, **ARCHITECTURES["qwen3_moe"], tie_word_embeddings=False)
    files = SOURCE.open(str(tmp_path / "m"))
    [use] = check_stored_weights(files, Stored())
    assert (use.kind, use.kept) == ("fp8", 8)
    assert sorted(layer.path for layer in use.anew)[0] == "model.layers.0.mlp.experts.down_proj.0"
    assert len(use.anew) == 2 * 2 * 4 and use.anew_bytes == sum(
        info.nbytes or 0 for name, info in files.tensors.items() if ".experts." in name
    )
    with torch.no_grad():
        ours = load_base_model(files, Stored(), device=CPU)(input_ids=IDS).logits
        theirs = transformers_model(tmp_path / "m")(input_ids=IDS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_stack_of_experts_in_fp8_is_dequantized(tmp_path: Path) -> None:
    """As transformers saves it: the stack's name, and `_scale_inv` behind it. Blocks are cut off in each matrix."""
    folder = tiny_model_folder(tmp_path / "m", **ARCHITECTURES["gpt_oss"])
    tensors, expected = {}, {}
    made = torch.Generator().manual_seed(4)
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensors[name] = tensor
        if name.endswith("down_proj"):
            codes = torch.randn(tensor.shape, generator=made).to(torch.float8_e4m3fn)
            scales = torch.rand(4, 3, 3, generator=made)
            tensors |= {name: codes, f"{name}_scale_inv": scales}
            spread = scales.repeat_interleave(48, 1)[:, : tensor.shape[1]].repeat_interleave(24, 2)
            expected[name] = codes.float() * spread[:, :, : tensor.shape[2]]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    said = {"quant_method": "fp8", "weight_block_size": [48, 24]}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": said}))
    files = SOURCE.open(str(folder))
    for name, dense in expected.items():
        found = files.tensor(name)
        assert isinstance(found, StoredWeight) and found.dequantize is not None and found.matrix is None
        assert torch.equal(found.dequantize(), dense)
    [use] = check_stored_weights(files, Stored())
    assert (use.kept, len(use.anew), use.can_be_kept) == (0, 8, False)
    load_base_model(files, Stored(), device=CPU)


def mxfp4_folder(path: Path, scales: tuple[int, int]) -> Path:
    """Writes gpt-oss, square matrices of experts among its own, whose scales are powers of two in a range."""
    folder = tiny_model_folder(path, **{**ARCHITECTURES["gpt_oss"], "intermediate_size": 64})
    tensors: dict[str, torch.Tensor] = {}
    made = torch.Generator().manual_seed(3)
    for name, tensor in load_file(folder / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = tensor
            continue
        experts, size_in, size_out = tensor.shape
        shape = (experts, size_out, size_in // 32)
        tensors[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), generator=made, dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.randint(*scales, shape, generator=made, dtype=torch.uint8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "mxfp4"}}))
    return folder


def test_mxfp4_computes_what_transformers_computes(tmp_path: Path) -> None:
    """Matrices that are square among them, as gpt-oss's own are: which way round they are, their shape does not say."""
    folder = mxfp4_folder(tmp_path / "m", (118, 123))
    files = SOURCE.open(str(folder))
    assert {info.dtype for info in files.tensors.values()} == {"F32", "mxfp4"}
    with torch.no_grad():
        ours = load_base_model(files, Dense(), device=CPU)(input_ids=IDS).logits
        kept = load_base_model(files, Stored(), device=CPU)
        experts = {name: weight for name, weight in frozen(kept).items() if ".experts." in name}
        assert {type(weight) for weight in experts.values()} == {ScaledWeight} and len(experts) == 16
        assert sum(weight.nbytes for weight in experts.values()) == sum(
            info.nbytes or 0 for info in files.tensors.values()
        )
        assert torch.equal(kept(input_ids=IDS).logits, ours)
        theirs = transformers_model(folder)
        weights = theirs.state_dict()
        for name, found in files.read():
            if isinstance(found, StoredWeight):
                assert found.dequantize is not None and torch.equal(found.dequantize(), weights[name])
        torch.testing.assert_close(ours, theirs(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
    assert any(len(set(info.shape[1:])) == 1 for info in files.tensors.values() if info.by_matrix)
    ModelSourceContract().test_a_weight_that_is_kept_as_it_lies_computes_what_its_source_dequantizes(files)


@pytest.mark.parametrize("quantizer", [Dense(), Stored()])
def test_experts_of_numbers_that_no_model_computes_with_are_refused(quantizer: Any, tmp_path: Path) -> None:
    files = SOURCE.open(str(mxfp4_folder(tmp_path / "m", (240, 241))))
    with pytest.raises(ModelError, match=r"experts\.\w+' holds numbers up to 6\.\de\+34"):
        load_base_model(files, quantizer, device=CPU)


GROUPS = compressed("pack-quantized", **INT4)["config_groups"]
VARIANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gptq bits": ("gptq", {"bits": 3}, "bits is '3'; known: 4, 8"),
    "gptq by module": ("gptq", {"dynamic": {"-:.*": {}}}, "dynamic is set"),
    "gptq marlin": ("gptq", {"is_marlin_format": True}, "is_marlin_format is set"),
    "gptq form": ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'; known: 'gptq', 'gptq_v2'"),
    "gptq words": ("gptq", {"pack_dtype": "int16"}, "pack_dtype is 'int16'; known: 'int32'"),
    "gptq group": ("gptq", {"group_size": 0}, "group_size is '0', which is no size"),
    "gptq other group": (
        "gptq",
        {"group_size": 32},
        r"scales' is F16 .8, 64.; its format has F16 or BF16 or F32 .4, 64.",
    ),
    "awq bits": ("awq", {"bits": 8}, "bits is '8'; known: 4"),
    "awq without zeros": ("awq", {"zero_point": False}, "zero_point is 'False'; known: True"),
    "awq for gemv": ("awq", {"version": "gemv"}, "version is 'gemv'; known: 'gemm'"),
    "awq of others": ("awq", {"backend": "llm-awq"}, "backend is 'llm-awq'; known: 'autoawq'"),
    "sparse": ("packed-int4", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "its weights are sparse, too"),
    "nvfp4": ("packed-int4", {"format": "nvfp4-pack-quantized"}, "format is 'nvfp4-pack-quantized'; known: 'pack-qu"),
    "bits": ("packed-int4", compressed("pack-quantized", **{**INT4, "num_bits": 3}), "weights: num_bits is '3'"),
    "zero points of floats": (
        "float8",
        compressed("float-quantized", num_bits=8, type="float", strategy="channel", symmetric=False),
        "config_groups.group_0.weights: symmetric is 'False'; known: True",
    ),
    "two ways": (
        "packed-int4",
        {"config_groups": {**GROUPS, "b": {"weights": {**INT4, "group_size": 32}}}},
        "its 2 config_groups are stored in different ways",
    ),
    "cache": ("packed-int4", {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme is set"),
    "rotated": ("packed-int4", {"transform_config": {"config_groups": {"u": {}}}}, "transform_config is set"),
    "not yet": ("packed-int4", {"quantization_status": "calibration"}, "quantization_status is 'calibration'"),
    "fp8 blocks": ("fp8", {"weight_block_size": [48]}, "weight_block_size is '.48.', which are no two sizes"),
    "fp8 other blocks": ("fp8", {"weight_block_size": [64, 64]}, "where blocks of 64 x 64 have"),
    "fp8 form": ("fp8", {"fmt": "e5m2"}, "fmt is 'e5m2'; known: 'e4m3'"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for form in {form for form, _, _ in VARIANTS.values()}:
        made[form] = tmp_path_factory.mktemp("quantized") / form
        quantized_folder(made[form], *FORMATS[form][:2])
    return made


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_that_is_not_known_is_refused_by_name(variant: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """From the headers, with what to do."""
    form, changed, told = VARIANTS[variant]
    for path in folders[form].iterdir():
        (tmp_path / path.name).symlink_to(path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    changed = {**config["quantization_config"], **changed}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": changed}))
    with pytest.raises(ModelError, match=told) as caught:
        SOURCE.open(str(tmp_path))
    assert "the unquantized model" in str(caught.value.hint)


def test_what_a_part_of_a_configuration_says_holds(tmp_path: Path) -> None:
    """Older files of llm-compressor call it compression_config."""
    settings, pack, _ = FORMATS["packed-int4"]
    expected = quantized_folder(tmp_path / "m", settings, pack, key="compression_config")
    files = SOURCE.open(str(tmp_path / "m"))
    found = files.tensor("model.layers.0.mlp.up_proj.weight")
    assert isinstance(found, StoredWeight) and found.dequantize is not None and "compression_config" not in files.config
    assert torch.equal(found.dequantize(), expected["model.layers.0.mlp.up_proj.weight"])


def test_a_configuration_that_says_two_things_is_refused(folders: dict[str, Path]) -> None:
    config = json.loads((folders["fp8"] / "config.json").read_text())
    tensors, said = SOURCE.open(str(folders["fp8"])).stored, config["quantization_config"]
    assert quantized_matrices({**config, "text_config": {"quantization_config": said}}, "config.json", tensors)
    with pytest.raises(ModelError, match=r"quantization_config: text_config.quantization_config says otherwise"):
        quantized_matrices({**config, "text_config": {"quantization_config": {"fmt": "e4m3"}}}, "config.json", tensors)


def test_a_matrix_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    settings, pack, _ = FORMATS["gptq"]
    expected = quantized_folder(tmp_path / "m", settings, pack)
    path, name = tmp_path / "m" / "model.safetensors", "model.layers.0.mlp.up_proj.weight"
    save_file({**load_file(path), name: expected[name]}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"tensor '{name}' is there quantized and as it was"):
        SOURCE.open(str(tmp_path / "m"))


@pytest.mark.parametrize(("act_order", "told"), [(True, "groups that there are not"), (False, "is out of order")])
def test_inputs_of_no_group_are_damage(act_order: bool, told: str, tmp_path: Path) -> None:
    settings, pack, _ = FORMATS["gptq-act-order"]
    quantized_folder(tmp_path / "m", {**settings, "desc_act": act_order}, pack)
    path, name = tmp_path / "m" / "model.safetensors", "model.layers.0.mlp.up_proj.g_idx"
    tensors = load_file(path)
    if act_order:
        tensors[name][3] = 99
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=told):
        SOURCE.open(str(tmp_path / "m")).tensor("model.layers.0.mlp.up_proj.weight")


UP = "model.layers.0.mlp.up_proj"


def changed(folder: Path, form: str, part: str, tensor: torch.Tensor) -> Path:
    """Writes a folder of a form, another tensor in the place of one, or beside those, of a layer."""
    quantized_folder(folder, *FORMATS[form][:2])
    path = folder / "model.safetensors"
    save_file({**load_file(path), f"{UP}.{part}": tensor}, path, metadata={"format": "pt"})
    return folder


def test_columns_of_no_group_are_in_order(tmp_path: Path) -> None:
    """A `weight_g_idx` that its own programs have not set is -1."""
    expected = quantized_folder(tmp_path / "plain", *FORMATS["packed-int4"][:2])
    folder = changed(tmp_path / "m", "packed-int4", "weight_g_idx", torch.full((64,), -1, dtype=torch.int32))
    found = SOURCE.open(str(folder)).tensor(f"{UP}.weight")
    assert isinstance(found, StoredWeight) and found.dequantize is not None
    assert torch.equal(found.dequantize(), expected[f"{UP}.weight"])


@pytest.mark.parametrize("group", [99, -5])
def test_columns_of_a_group_that_there_is_not_are_damage(group: int, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "packed-int4", "weight_g_idx", torch.full((64,), group, dtype=torch.int32))
    with pytest.raises(ModelError, match="groups that there are not"):
        SOURCE.open(str(folder)).tensor(f"{UP}.weight")


@pytest.mark.parametrize("zeros", [0, -0x77777778])
def test_zero_points_that_a_symmetric_format_may_have_say_nothing(zeros: int, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "packed-int4", "weight_zero_point", torch.full((16, 8), zeros, dtype=torch.int32))
    plain = quantized_folder(tmp_path / "plain", *FORMATS["packed-int4"][:2])
    found = SOURCE.open(str(folder)).tensor(f"{UP}.weight")
    assert isinstance(found, StoredWeight) and found.dequantize is not None
    assert torch.equal(found.dequantize(), plain[f"{UP}.weight"])


@pytest.mark.parametrize(
    ("form", "zeros"), [("packed-int4", torch.int32), ("int8", torch.int8), ("float8", torch.float8_e4m3fn)]
)
def test_zero_points_of_a_symmetric_format_are_not_dropped(form: str, zeros: torch.dtype, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", form, "weight_zero_point", torch.ones(8, 1).to(zeros))
    with pytest.raises(ModelError, match="it has zero points, where its format is symmetric"):
        SOURCE.open(str(folder)).tensor(f"{UP}.weight")


def test_packed_zero_points_of_a_whole_matrix_are_refused(tmp_path: Path) -> None:
    def pack(numbers: Any, rows: int, columns: int) -> Any:
        made, expected = packed_integers(4, symmetric=False)(numbers, rows, columns)
        own = {"weight_scale": made["weight_scale"][:1, :1], "weight_zero_point": made["weight_zero_point"][:, :1]}
        return {**made, **own}, expected

    whole = {"num_bits": 4, "type": "int", "strategy": "tensor", "symmetric": False}
    quantized_folder(tmp_path / "m", compressed("pack-quantized", **whole), pack)
    with pytest.raises(ModelError, match="has zero points that rows share"):
        SOURCE.open(str(tmp_path / "m"))


def test_packed_integers_are_no_floating_point_numbers(tmp_path: Path) -> None:
    said = compressed("float-quantized", **{**INT4, "num_bits": 8, "type": "float"})
    quantized_folder(tmp_path / "m", said, packed_integers(8))
    with pytest.raises(ModelError, match="is packed integers"):
        SOURCE.open(str(tmp_path / "m"))


def test_a_row_need_not_fill_its_last_byte() -> None:
    from graftkit_models.quantized.packed import in_bytes, unpacked

    numbers = torch.arange(15, dtype=torch.uint8)[None]
    assert torch.equal(unpacked(in_bytes(numbers, 4).view(torch.int32), 4)[:, :15], numbers)


def test_a_group_that_is_far_wider_than_the_matrix_takes_no_memory(tmp_path: Path) -> None:
    settings, _, _ = FORMATS["gptq"]
    pack = gptq(4, group=64)
    expected = quantized_folder(tmp_path / "m", {**settings, "group_size": (1 << 31) - 1}, pack, intermediate_size=64)
    for name, found in SOURCE.open(str(tmp_path / "m")).read():
        if isinstance(found, StoredWeight):
            assert found.dequantize is not None and torch.equal(found.dequantize(), expected[name])


def test_scales_of_scales_for_far_more_than_there_are_take_no_memory() -> None:
    """A block of 2^31 scales took 8 GB, spread out before it was cut to those that there are."""
    layout = ScaledLayout((8, 8), (1, 64), (1, 32), "uint4", nested_levels=(0.5,) * 256, nested_block=1 << 50)
    tensors = {"codes": torch.zeros(1, 32, dtype=torch.uint8), "scales": torch.zeros(1, 2, dtype=torch.uint8)}
    tensors |= {"nested_scales": torch.tensor([2.0]), "nested_offset": torch.zeros(1)}
    assert torch.equal(ScaledWeight(tensors, layout)._scales(), torch.ones(1, 2))


def test_bits_that_are_no_whole_number_in_the_file_are_the_known_one() -> None:
    found = Settings("quantization_config", {"bits": 4.0}, "").choose("bits", (4, 8))
    assert found == 4 and type(found) is int


@pytest.mark.parametrize(("form", "part"), [("gptq", "qweight"), ("fp8", "weight"), ("awq", "qweight")])
def test_a_matrix_of_nothing_is_refused(form: str, part: str, tmp_path: Path) -> None:
    quantized_folder(tmp_path / "m", *FORMATS[form][:2])
    path, name = tmp_path / "m" / "model.safetensors", f"model.layers.0.mlp.up_proj.{part}"
    tensors = load_file(path)
    save_file({**tensors, name: tensors[name][:0]}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"tensor '{name}' is .*; its format has"):
        SOURCE.open(str(tmp_path / "m"))


def test_scales_of_groups_are_none_of_rows(tmp_path: Path) -> None:
    settings = compressed("pack-quantized", **{**INT4, "strategy": "channel", "group_size": None})
    quantized_folder(tmp_path / "m", settings, packed_integers(4))
    with pytest.raises(ModelError, match="where its weight has .64, 1. scales"):
        SOURCE.open(str(tmp_path / "m"))


@pytest.mark.parametrize("form", BITSANDBYTES)
def test_bitsandbytes_own_files_are_read_bit_for_bit(form: str, tmp_path: Path) -> None:
    """The codes of the file, and the logits of the model that transformers dequantizes."""
    folder = bitsandbytes_folder(tmp_path, BITSANDBYTES[form])
    files, stored = SOURCE.open(str(folder)), load_file(folder / "model.safetensors")
    quantized = {name: info for name, info in files.tensors.items() if info.dtype.startswith("bitsandbytes-")}
    assert len(quantized) == (8 if "conv1d" in form else 14)
    theirs = transformers_model(folder).dequantize().float()
    weights = theirs.state_dict()
    with torch.no_grad():
        logits = theirs(input_ids=IDS).logits
        for quantizer in (Stored(), Dense()):
            model = load_base_model(files, quantizer, device=CPU)
            assert torch.equal(model(input_ids=IDS).logits, logits)
            for name, weight in frozen(model).items():
                assert torch.equal(weight.dequantize(), weights[name])
                if isinstance(quantizer, Stored) and "conv1d" not in form:
                    codes = weight.state()["codes"].view(-1).view(torch.uint8)
                    assert torch.equal(codes, stored[name].view(-1).view(torch.uint8))
                    assert weight.nbytes == quantized[name].nbytes
    ModelSourceContract().test_a_weight_that_is_kept_as_it_lies_computes_what_its_source_dequantizes(files)
    ModelSourceContract().test_names_and_shapes_are_those_that_are_read(files)


def test_the_quantizers_own_weights_are_used_where_the_layout_is_theirs(tmp_path: Path) -> None:
    """They compute faster; what has other blocks or levels is kept all the same."""
    for form, used in (("nf4", Nf4Weight), ("int8", Int8Weight)):
        files = SOURCE.open(str(bitsandbytes_folder(tmp_path / form, BITSANDBYTES[form])))
        kinds = {type(weight) for weight in frozen(load_base_model(files, Stored(), device=CPU)).values()}
        assert kinds == {used}
    name = "model.layers.0.mlp.up_proj.weight"
    files = SOURCE.open(str(tmp_path / "nf4" / "m"))
    found, layer = files.tensor(name), LayerInfo(name.removesuffix(".weight"), "linear", 128, 64)
    assert isinstance(found, StoredWeight)
    assert Nf4(Nf4Config(double_quant=True)).adopt(found, layer) is None
    assert isinstance(Nf4().adopt(found, layer), Nf4Weight)
    other = {**found.meta, "levels": [level / 2 for level in found.meta["levels"]]}
    assert Nf4().adopt(replace(found, meta=other), layer) is None


def test_rows_that_one_kind_of_gpu_wants_otherwise_are_refused(tmp_path: Path) -> None:
    folder = bitsandbytes_folder(tmp_path, BITSANDBYTES["int8"])
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight_format"] += 2
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="'model.layers.1.mlp.up_proj.weight_format' is not 0"):
        SOURCE.open(str(folder))


@pytest.mark.parametrize("said", [{"blocksize": 1}, {"nested_blocksize": 256, "nested_offset": 10**400}])
def test_a_state_that_bitsandbytes_never_writes_is_refused(said: dict[str, Any], tmp_path: Path) -> None:
    folder = bitsandbytes_folder(tmp_path, BITSANDBYTES["nf4"])
    tensors, name = load_file(folder / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    state = f"{name}.quant_state.bitsandbytes__nf4"
    made = json.dumps({**json.loads(bytes(tensors[state].tolist())), **said}).encode()
    tensors[state] = torch.tensor(list(made), dtype=torch.uint8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"beside '{name}' .* is no layout of bitsandbytes"):
        SOURCE.open(str(folder))


def test_the_architectures_with_conv1d_are_known() -> None:
    """Those of the causal ones whose code imports such layers."""
    import transformers
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    models = Path(transformers.__file__).parent / "models"
    code = {type_: models / model_type_to_module_name(type_) for type_ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    found = {type_ for type_, folder in code.items() if any(map(imports_conv1d, folder.glob("modeling_*.py")))}
    assert found == CONV1D


def imports_conv1d(path: Path) -> bool:
    return re.search("^from .*pytorch_utils import .*Conv1D", path.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("type_", ["nf4", "fp4"])
def test_blocks_may_cross_rows(type_: str, tmp_path: Path) -> None:
    """And the last one need not be full. bitsandbytes' fast code for CPUs is wrong there; its plain code is not."""
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    fields = {"load_in_4bit": True, "bnb_4bit_quant_type": type_, "bnb_4bit_use_double_quant": True}
    config = {"hidden_size": 60, "intermediate_size": 73, "num_key_value_heads": 1, "head_dim": 20}
    folder = bitsandbytes_folder(tmp_path, (fields, torch.float32, config))
    files, tensors = SOURCE.open(str(folder)), load_file(folder / "model.safetensors")
    layers = frozen(load_base_model(files, Stored(), device=CPU))
    assert {type(weight) for weight in layers.values()} == {ScaledWeight} and len(layers) == 14
    for name, weight in layers.items():
        own = {key: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        state = QuantState.from_dict({key.removeprefix(f"{name}."): value for key, value in own.items()}, CPU)
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
        size = (scales, state.code, state.blocksize, tuple(weight.dequantize().shape), torch.float32)
        assert torch.equal(weight.dequantize(), _dequantize_4bit_compute(tensors[name].view(-1), *size)), name
        assert weight.nbytes == files.tensors[name].nbytes
    ModelSourceContract().test_a_weight_that_is_kept_as_it_lies_computes_what_its_source_dequantizes(files)


def test_tensors_that_a_layout_does_not_have_are_damage_when_they_are_read() -> None:
    """Not only when the weight is used, where nobody knows its name any more."""
    layout = ScaledLayout(shape=(2, 4), grid=(2, 4), block=(1, 4), codes="float8_e4m3fn")
    codes, scales = torch.zeros(2, 4).to(torch.float8_e4m3fn), torch.ones(2, 1)
    with pytest.raises(ValueError, match="stored tensor 'zeros' is torch.float8_e4m3fn"):
        stored_weight("fp8", {"codes": codes, "scales": scales, "zeros": torch.ones(2, 1).to(codes.dtype)}, layout)
