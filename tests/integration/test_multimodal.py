"""Multimodal models trained on text alone: what is proved is the whole model's function, its towers untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
import transformers
from architectures import settings
from graftkit.errors import ExportError, ModelError
from graftkit.flow.answering.reload import reload
from graftkit.flow.base_files.towers import check_towers
from graftkit.interfaces.architecture import load_pretrained
from graftkit.model.adapt import AdaptedModel
from graftkit.model.load import load_base_model
from graftkit.model.packing import choose_packing
from graftkit.store.token_store import TokenStore
from graftkit.testing import tiny_model_folder
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from integration.conftest import RecipeMaker
from reference import reference_loss
from safetensors.torch import load_file, save_file

MODELS = ("gemma3", "mistral3", "qwen2_5_vl as its hub has it")
EXPORTS = ("peft", "merged", "extended-base")
WORDS = [f"word{number}" for number in range(70)]
"""More than the embedding has spare rows."""
PROCESSORS = {
    "preprocessor_config.json": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 28, "width": 28}},
    "processor_config.json": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
    "video_preprocessor_config.json": {"video_processor_type": "Qwen2VLVideoProcessor", "fps": 2},
}
"""Files that say how images and videos become a model's inputs."""
TOWERS = ("vision_tower.", "multi_modal_projector.", "visual.")


def model_folder(name: str, path: Path) -> Path:
    """Writes a model whose weights are stored in bfloat16, as such models are."""
    kind, _, hub = name.partition(" ")
    folder = tiny_model_folder(path, **settings(kind))
    stored = {key: tensor.bfloat16() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    for file, said in PROCESSORS.items():
        (folder / file).write_text(json.dumps(said | {"auto_map": {"AutoProcessor": "evil.Evil"}}))
    if hub:
        config = json.loads((folder / "config.json").read_text())
        text = config.pop("text_config")
        (folder / "config.json").write_text(json.dumps({**text, **config}))
    return folder


def theirs(folder: Path) -> Any:
    """Loads the class that config.json names, and makes sure that it finds every tensor."""
    kind = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model, info = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return model


def towers(folder: Path) -> dict[str, torch.Tensor]:
    found = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in found.items() if any(tower in name for tower in TOWERS)}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return model_folder(request.param, tmp_path / "model")


def test_a_multimodal_model_is_trained_on_text_and_proved(
    model: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    result = graftkit.run(make_recipe(model=str(model), export=["peft", "merged"]), out=tmp_path / "run")
    manifest, merged = result.manifest, result.exports["merged"]
    assert manifest["sequences"]["packed"], manifest["sequences"]
    assert {facts["proof"]["status"] for facts in manifest["exports"].values()} == {"proved"}
    targets = json.loads((result.folder / "adapter" / "adapter.json").read_text())["targets"]
    assert targets and not any(tower in target for target in targets for tower in TOWERS)

    store = TokenStore.load(result.folder / "tokens" / "holdout.safetensors")
    before, after = result.before, result.after
    assert before is not None and after is not None
    assert before.holdout_loss == pytest.approx(reference_loss(theirs(model), store), rel=1e-4)
    assert after.holdout_loss == pytest.approx(reference_loss(theirs(merged), store), rel=1e-4)
    assert after.holdout_loss < before.holdout_loss

    own, kept = towers(model), towers(merged)
    assert kept and kept.keys() == own.keys()
    for name, tensor in kept.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, own[name]), name
    assert load_file(merged / "model.safetensors").keys() == load_file(model / "model.safetensors").keys()
    config, base = (json.loads((folder / "config.json").read_text()) for folder in (merged, model))
    del base["transformers_version"]
    assert config == base | {"dtype": "float32"}
    assert {file: json.loads((merged / file).read_text()) for file in PROCESSORS} == PROCESSORS
    said = json.loads((merged / "tokenizer_config.json").read_bytes())
    assert (merged / "chat_template.jinja").read_text() == said["chat_template"], "AutoProcessor reads no other"
    again = graftkit.export(result.exports["peft"], "merged", out=tmp_path / "again", proof="later").folder
    assert all((again / file).read_bytes() == (merged / file).read_bytes() for file in PROCESSORS)

    sources = [result.folder, result.exports["peft"], merged]
    answers = {"".join(reload(str(source)).stream("7+7=", max_new_tokens=8)) for source in sources}
    assert len(answers) == 1


@pytest.mark.parametrize("name", ["mistral3", "qwen2_5_vl as its hub has it"])
def test_the_vocabulary_of_a_multimodal_model_is_extended(name: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    folder = model_folder(name, tmp_path / "model")
    sections = {"tokenizer": {"extend": {"tokens": 0, "words": WORDS}}, "export": list(EXPORTS)}
    result = graftkit.run(make_recipe(model=str(folder), **sections), out=tmp_path / "run")
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    again = theirs(result.exports["merged"])
    assert again.config.get_text_config().vocab_size == again.get_input_embeddings().num_embeddings == 259 + len(WORDS)
    assert len({"".join(reload(str(f)).stream("7+7=", max_new_tokens=8)) for f in result.exports.values()}) == 1


def test_a_vocabulary_in_which_media_tokens_would_move_is_refused(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    folder = model_folder("qwen2_5_vl", tmp_path / "model")
    section = {"train": {"use": "byte-level", "vocab_size": 300}}
    with pytest.raises(ModelError, match="vocabulary of this qwen2_5_vl model can't be changed so: its tokens for"):
        graftkit.run(make_recipe(model=str(folder), tokenizer=section), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tower_tensor_that_is_missing_is_no_silent_random_one(tmp_path: Path) -> None:
    folder = model_folder("gemma3", tmp_path / "model")
    assert load_pretrained(folder, dtype=torch.float16).dtype == torch.float16
    tensors = load_file(folder / "model.safetensors")
    del tensors[next(name for name in tensors if name.startswith("vision_tower."))]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 missing keys, such as model.vision_tower"):
        load_pretrained(folder)


def test_towers_are_kept_on_the_cpu_as_the_file_has_them(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(model_folder("gemma3", tmp_path / "model")))
    network = load_base_model(files, Dense(), device=torch.device("cpu"))
    for name, parameter in network.named_parameters():
        tower = any(tower in name for tower in TOWERS)
        assert parameter.dtype == (torch.bfloat16 if tower else torch.float32), name


def test_a_model_that_computes_text_with_its_towers_is_refused() -> None:
    config = {"model_type": "instructblip", "text_config": {"model_type": "opt"}, "vision_config": {}}
    with pytest.raises(ModelError, match="this instructblip model could not be tried on text alone"):
        choose_packing(config)


def test_a_prefix_language_model_is_refused() -> None:
    text = {**settings("gemma3")["text_config"], "model_type": "gemma", "sliding_window": None}
    with pytest.raises(ModelError, match="this paligemma model is not causal"):
        choose_packing({"model_type": "paligemma", "text_config": text, "vision_config": {}})


def test_a_tower_that_an_exporter_changed_is_refused(tmp_path: Path) -> None:
    """No logits of text would tell."""
    files = HuggingFaceSource().open(str(model_folder("gemma3", tmp_path / "model")))
    network: Any = load_base_model(files, Dense(), device=torch.device("cpu"))
    model: Any = AdaptedModel(network, "", files.config, None, None, {})  # type: ignore[arg-type]
    for tensors in (model.base_tensors(), model.published(model.base_tensors())):
        written = {name: tensor.contiguous() for name, tensor in tensors}
        save_file(written, tmp_path / "model.safetensors")
        check_towers(model, tmp_path)
        name = next(name for name in sorted(written) if "vision_tower." in name and written[name].any())
        for wrong in (written[name] + 1, written[name].float()):
            save_file({**written, name: wrong}, tmp_path / "model.safetensors")
            with pytest.raises(ExportError, match=name):
                check_towers(model, tmp_path)
