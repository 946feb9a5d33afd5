"""Which layers an adapter goes on."""

from __future__ import annotations

import time

import pytest
from graftkit.errors import TargetError
from graftkit.interfaces.model_source import TensorInfo
from graftkit.model.targets import likely_layers, likely_output, match_targets, names_are_certain

LAYERS = [
    f"model.layers.{number}.{part}"
    for number in range(2)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.experts.0.up_proj")
]


def test_every_matrix_inside_the_blocks_is_a_linear_layer_and_nothing_else() -> None:
    tensors = {
        "model.embed_tokens.weight": TensorInfo((320, 64), "F32"),
        "model.layers.0.self_attn.q_proj.weight": TensorInfo((64, 32), "F32"),
        "model.layers.0.self_attn.q_proj.bias": TensorInfo((64,), "F32"),
        "model.layers.0.input_layernorm.weight": TensorInfo((64,), "F32"),
        "model.layers.11.mlp.up_proj.weight": TensorInfo((128, 64), "BF16"),
        "model.layers.0.conv.weight": TensorInfo((4, 4, 4), "F32"),
        "model.norm.weight": TensorInfo((64,), "F32"),
        "lm_head.weight": TensorInfo((320, 64), "F32"),
    }
    assert likely_layers(tensors) == {
        "model.layers.0.self_attn.q_proj": (64, 32),
        "model.layers.11.mlp.up_proj": (128, 64),
    }


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        ("all-linear", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("q_proj", [0, 4]),
        ("up_proj", [2, 3, 6, 7]),
        ("mlp.up_proj", [2, 6]),
        ("model.layers.1.mlp.up_proj", [6]),
        ("*_proj", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("?_proj", [0, 1, 4, 5]),
        ("*.self_attn.*", [0, 1, 4, 5]),
        ("self_attn.*", [0, 1, 4, 5]),
        ("layers.0.*", [0, 1, 2, 3]),
        ("*.1.*.k_proj", [5]),
        ("experts.*", [3, 7]),
    ],
)
def test_a_pattern_names_layers_by_leaf_suffix_path_or_glob(pattern: str, places: list[int]) -> None:
    assert match_targets([pattern], LAYERS) == [LAYERS[place] for place in places]


def test_several_patterns_give_each_layer_once_in_the_models_order() -> None:
    found = match_targets(["mlp.up_proj", "q_proj", "*.0.*.q_proj"], LAYERS)
    assert found == [LAYERS[0], LAYERS[2], LAYERS[4], LAYERS[6]]


@pytest.mark.parametrize("pattern", ["proj", "attn.q_proj", "Q_PROJ", "all_linear", "embed_tokens", "", "self_attn"])
def test_half_a_name_matches_nothing(pattern: str) -> None:
    with pytest.raises(TargetError):
        match_targets([pattern], LAYERS)


def test_a_target_that_matches_nothing_names_the_nearest_and_the_place() -> None:
    with pytest.raises(TargetError) as caught:
        match_targets(["k_proj", "q_porj"], LAYERS, "recipe.yaml:4")
    assert str(caught.value) == (
        "recipe.yaml:4: the target 'q_porj' matches no layer of the model\n"
        "Did you mean 'q_proj'? Its layers end in: k_proj, q_proj, up_proj; or say all-linear."
    )
    assert caught.value.exit_code == 2
    with pytest.raises(TargetError) as caught:
        match_targets(["all-linear"], [], outer=["lm_head"])
    assert caught.value.hint == "Its layers end in: lm_head; its blocks have no linear layers."


def test_the_output_layer_is_named_alone() -> None:
    assert match_targets(["lm_head", "q_proj"], LAYERS, outer=["lm_head"]) == [LAYERS[0], LAYERS[4], "lm_head"]
    assert match_targets(["lm_head"], LAYERS, outer=["model.lm_head"]) == ["model.lm_head"]
    for pattern in ("all-linear", "*", "*_proj", "*.*"):
        assert match_targets([pattern], LAYERS, outer=["lm_head"]) == match_targets([pattern], LAYERS)
    for pattern in ("head", "*head", "lm_heat"):
        with pytest.raises(TargetError, match="matches no layer of the model") as caught:
            match_targets([pattern], LAYERS, outer=["lm_head"])
        assert "lm_head" in str(caught.value.hint)


def test_a_file_says_what_its_output_layer_is() -> None:
    embedding, block = TensorInfo((320, 64), "F32"), TensorInfo((64, 400), "F32")
    tied = {"model.embed_tokens.weight": embedding, "model.layers.0.mlp.up_proj.weight": block}
    assert likely_output(tied) == ("lm_head", (320, 64))
    other = TensorInfo((328, 64), "F32")
    for name, path in (("lm_head", "lm_head"), ("embed_out", "lm_head"), ("output_projection", "output_projection")):
        assert likely_output({**tied, f"{name}.weight": other}) == (path, (328, 64))
    assert likely_output({**tied, "text.lm_head.weight": other}) == ("text.lm_head", (328, 64))
    assert likely_output({"model.norm.weight": TensorInfo((64,), "F32")}) is None


def test_a_misspelt_all_linear_is_found_too() -> None:
    with pytest.raises(TargetError, match="Did you mean 'all-linear'"):
        match_targets(["all-linaer"], LAYERS)


def test_what_chooses_between_experts_is_no_layer_to_adapt() -> None:
    names = {
        "model.layers.0.mlp.gate.weight": False,
        "model.layers.0.mlp.shared_expert_gate.weight": False,
        "model.layers.0.ffn.router.layer.weight": False,
        "model.layers.0.mlp.experts.0.gate_proj.weight": True,
        "model.layers.0.mlp.shared_expert.gate_proj.weight": True,
        "model.layers.0.ffn.experts.0.w1.weight": True,
        "model.layers.1.mlp.gate.weight": True,  # of a block without experts
    }
    found = likely_layers(dict.fromkeys(names, TensorInfo((4, 4), "F32")))
    assert list(found) == [name.removesuffix(".weight") for name, layer in names.items() if layer]


@pytest.mark.parametrize(
    ("name", "certain"),
    [
        ("model.layers.0.self_attn.q_proj.weight", True),
        ("transformer.h.0.attn.c_attn.weight", True),
        ("h.0.attn.c_attn.weight", False),
        ("model.layers.0.block_sparse_moe.experts.0.w1.weight", False),
    ],
)
def test_names_that_transformers_changes_are_not_certain(name: str, certain: bool) -> None:
    assert names_are_certain({name: TensorInfo((4, 4), "F32")}) is certain


def test_a_pattern_of_brackets_that_are_not_closed_ends_soon() -> None:
    begun = time.process_time()
    with pytest.raises(TargetError, match="matches no layer"):
        match_targets(["[" * 50_000], LAYERS)
    assert time.process_time() - begun < 5


def test_long_names_are_not_compared_letter_by_letter() -> None:
    name = "".join(map(chr, range(0x4E00, 0x4E00 + 400))) * 200
    begun = time.process_time()
    with pytest.raises(TargetError, match="matches no layer"):
        match_targets([name], [f"model.layers.0.{name[::-1]}"])
    assert time.process_time() - begun < 5
