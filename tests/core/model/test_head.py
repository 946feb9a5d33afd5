"""A head's scores are those that transformers' own classes give each sequence alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_models import ENCODERS, encoder_folder
from graftkit.errors import ModelError
from graftkit.interfaces.architecture import head_of, with_head
from graftkit.model import packing
from graftkit.model.head import head_modules, head_parameters, sequence_scores, start_head
from graftkit.model.packing import choose_packing, forward_inputs, use_packing
from graftkit.testing import TINY_CONFIG

HEADS = {
    "llama": ["score"],
    "bert": ["bert.pooler", "classifier"],
    "roberta": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
    "modernbert": ["head", "classifier"],
}
LABELS = ["bad", "so-so", "good"]


def classifier(kind: str, **more: Any) -> tuple[dict[str, Any], Any]:
    """Returns a config.json and the random model that transformers makes of it."""
    from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

    given = {**TINY_CONFIG} if kind == "llama" else {**ENCODERS[kind], "vocab_size": 320, "model_type": kind}
    given.pop("model_type")
    named = "LlamaForCausalLM" if kind == "llama" else "BertModel"
    config = CONFIG_MAPPING[kind](**given, **more).to_dict() | {"architectures": [named], "model_type": kind}
    config = with_head(config, "sequence", LABELS, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {key: value for key, value in config.items() if key != "model_type"}
        model: Any = AutoModelForSequenceClassification.from_config(CONFIG_MAPPING[kind](**settings))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return config, model.eval()


@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_scores_are_the_classs_own_however_sequences_share_a_pass(kind: str) -> None:
    config, model = classifier(kind)
    assert head_of(config) == "sequence" and head_modules(model) == HEADS[kind]
    random = torch.Generator().manual_seed(0)
    sequences = [torch.randint(5, 320, (length,), generator=random) for length in (50, 3, 1, 24)]
    expected = torch.cat([model(ids[None]).logits for ids in sequences])
    packing = choose_packing(config)
    assert packing.packed, packing.reason
    use_packing(model, packing)
    found = sequence_scores(model, sequences, forward_inputs(sequences, packed=True))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    pooler = getattr(model.base_model, "pooler", None)
    assert (kind == "bert") == (pooler is not None), "what was set aside is back"
    assert "forward" not in vars(model.base_model)


@torch.no_grad()
def test_a_decoder_scores_the_last_token_that_is_no_padding() -> None:
    config, model = classifier("llama")
    ids = torch.tensor([9, 8, 7, 1, 1])
    expected = model(ids[None, :3]).logits[0]
    use_packing(model, choose_packing(config))
    found = sequence_scores(model, [ids, ids[:3]], forward_inputs([ids, ids[:3]], packed=True))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], expected)


def test_a_class_that_looks_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForSequenceClassification

    config, _ = classifier("llama")
    own = LlamaForSequenceClassification.forward

    def forward(self: Any, input_ids: Any, **others: Any) -> Any:
        found = own(self, input_ids, **others)
        found.logits = found.logits + 0.1 * self.model.embed_tokens(input_ids).sum()
        return found

    assert choose_packing(config).packed
    monkeypatch.setattr("graftkit.model.packing._of_configuration", packing._of_configuration.__wrapped__)
    monkeypatch.setattr(LlamaForSequenceClassification, "forward", forward)
    monkeypatch.setattr(
        "graftkit.model.packing.head_scores", lambda network, sequences, inputs: torch.zeros(len(sequences), 3)
    )
    with pytest.raises(ModelError, match="of something else than its body's last hidden states"):
        choose_packing(config)


def test_a_base_with_a_pooler_is_given_a_head_on_tokens_which_has_none(tmp_path: Path) -> None:
    from graftkit.flow.planning.head import with_facts
    from graftkit.model.model_plan import plan_base_model
    from graftkit.report.run_manifest import HeadFacts
    from graftkit_models.huggingface import HuggingFaceSource

    folder = encoder_folder(tmp_path / "bert", "bert", whole=False)
    files = with_facts(HuggingFaceSource().open(str(folder)), HeadFacts(kind="token", labels=LABELS))
    planned = plan_base_model(files)
    assert planned.new == ["classifier.weight", "classifier.bias"] and planned.head == ["classifier"]
    assert planned.unused == ["pooler.dense.bias", "pooler.dense.weight"]
    assert "problem_type" not in files.config and files.config["id2label"] == dict(zip("012", LABELS, strict=True))


def test_the_start_of_a_head_follows_from_the_seed_and_its_names() -> None:
    _, model = classifier("bert")
    names = list(head_parameters(model, ["classifier"]))
    assert names == ["classifier.weight", "classifier.bias"]
    before = model.bert.pooler.dense.weight.clone()
    start_head(model, names, 3)
    first = model.classifier.weight.detach().clone()
    assert torch.equal(model.bert.pooler.dense.weight, before) and not model.classifier.bias.any()
    assert first.std() == pytest.approx(ENCODERS["bert"]["initializer_range"], rel=0.3)
    start_head(model, names, 4)
    assert not torch.equal(model.classifier.weight, first)
    start_head(model, names, 3)
    assert torch.equal(model.classifier.weight, first)


def test_a_base_without_a_head_is_loaded_and_what_it_lacks_is_named(tmp_path: Path) -> None:
    """BERT's file has an output layer for masked tokens that a classifier has no use for, and perhaps no pooler."""
    from graftkit.flow.planning.head import with_facts
    from graftkit.model.model_plan import plan_base_model
    from graftkit.report.run_manifest import HeadFacts
    from graftkit_models.huggingface import HuggingFaceSource

    for whole in (True, False):
        folder = encoder_folder(tmp_path / str(whole), "bert", whole=whole)
        files = with_facts(HuggingFaceSource().open(str(folder)), HeadFacts(kind="sequence", labels=LABELS))
        planned = plan_base_model(files)
        pooler = ["bert.pooler.dense.weight", "bert.pooler.dense.bias"] if whole else []
        assert planned.new == [*pooler, "classifier.weight", "classifier.bias"]
        assert planned.head == HEADS["bert"]
        assert all(name.startswith("cls.") for name in planned.unused) and bool(planned.unused) == whole
        assert not any("pooler" in layer.path or "classifier" in layer.path for layer in planned.layers)
