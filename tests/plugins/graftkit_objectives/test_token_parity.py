"""Losses and gradients of heads on tokens equal those of transformers' classes, through a peft LoRA."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_models import encoder_folder
from graftkit.interfaces.scores import TokenScores
from graftkit.model.packing import Packing, use_packing
from graftkit.store.token_store import TARGET, Example, TokenStore
from graftkit.training.head_loss import HeadLoss, OfTokens
from graftkit.training.step_loss import Passes
from graftkit_objectives.config import TokenClassificationConfig
from graftkit_objectives.entities import are_chunks, entities_in, precision_recall_f1
from graftkit_objectives.token_classification import TokenClassification
from reference import gradients, step_gradients
from torch.nn.functional import cross_entropy

IDS = [[2, 40, 41, 9, 12, 3], [2, 7, 3], [2, *range(20, 45), 3], [2, 30, 31, 3], [2, 5, 6, 7, 8, 3]]
TAGS = [
    [-100, 0, -100, 2, 1, -100],
    [-100, 1, -100],
    [-100, *[0, 1, -100, 2, 2] * 5, -100],
    [1, -100, 2, -100],  # a decoder's first token may have a tag: nothing is predicted from what stands before it
    [-100, -100, 0, 0, 1, -100],
]
LABELS = ["B-PER", "I-PER", "O"]
DECODERS = ("llama", "qwen2")


def folder_of(kind: str, folder: Path) -> Path:
    if kind not in DECODERS:
        return encoder_folder(folder, kind)
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CONFIG_MAPPING[kind](**sizes, num_key_value_heads=2, vocab_size=64, pad_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns a tagger of transformers' with peft's LoRA, moved from its start, and its head trained."""

    @cache
    def model(kind: str) -> Any:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForTokenClassification

        folder = folder_of(kind, tmp_path_factory.mktemp("models") / kind)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            named = dict(enumerate(LABELS))
            network = AutoModelForTokenClassification.from_pretrained(folder, id2label=named, dtype=torch.float32)
            head = [name for name, part in network.named_children() if part is not network.base_model]
            trained = [name for name in head if any(True for _ in network.get_submodule(name).parameters())]
            config = LoraConfig(
                r=4,
                task_type="TOKEN_CLS",
                target_modules="all-linear",
                exclude_modules=trained,
                modules_to_save=trained,
            )
            peft = get_peft_model(network, config)
            for name, parameter in peft.named_parameters():
                if name.endswith("lora_B.default.weight"):
                    torch.nn.init.normal_(parameter, std=0.3)
        return peft.eval()

    return model


def stored() -> TokenStore:
    def example(ids: list[int], tags: list[int]) -> Example:
        target = np.array(tags, np.int32)
        return Example(np.array(ids), (target >= 0).astype(np.float32), 0, {TARGET: np.maximum(target, 0)})

    return TokenStore.of(map(example, IDS, TAGS))


def learnt_there(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the loss that transformers' class gives a padded batch, and the scores of the tokens with tags."""
    model.zero_grad()
    model.get_base_model().set_attn_implementation("eager")
    longest = max(map(len, IDS))
    pad = [longest - len(ids) for ids in IDS]
    labels = torch.tensor([[*tags, *[-100] * count] for tags, count in zip(TAGS, pad, strict=True)])
    output = model(
        input_ids=torch.tensor([[*ids, *[0] * count] for ids, count in zip(IDS, pad, strict=True)]),
        attention_mask=torch.tensor([[1] * len(ids) + [0] * count for ids, count in zip(IDS, pad, strict=True)]),
        labels=labels,
    )
    return output.loss, output.logits[labels >= 0]


@pytest.mark.parametrize(
    "kind,packed,microbatch",
    [
        *[(kind, True, 30) for kind in ("bert", "distilbert", "modernbert", "llama", "qwen2")],
        *[("roberta", True, 1000), ("bert", False, 30), ("qwen2", False, 30)],
    ],
)
def test_token_classification(made: Any, kind: str, packed: bool, microbatch: int) -> None:
    model, store = made(kind), stored()
    loss, scores = learnt_there(model)
    loss.backward()
    expected = gradients(model)
    known = torch.tensor([tag for tags in TAGS for tag in tags if tag >= 0])
    right = (scores.argmax(1) == known).float().mean().item()

    def made_loss(network: Any, passes: Passes) -> HeadLoss:
        return HeadLoss(network, TokenClassification(TokenClassificationConfig()), passes, OfTokens(LABELS))

    score, ours = step_gradients(model, store, made_loss, packed=packed, microbatch=microbatch)
    assert score.loss == pytest.approx(loss.item(), rel=1e-5)
    assert score.metrics == {"accuracy": pytest.approx(right)}
    assert (score.tokens, score.loss_tokens) == (sum(map(len, IDS)), len(known))
    assert store.loss_tokens.sum() == len(known)
    assert ours.keys() == expected.keys() and any("lora_A" in name for name in ours)
    assert any("lora_" not in name for name in ours), "the head is trained, too"
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * largest, rtol=1e-4), name


@pytest.mark.parametrize("packed,microbatch", [(True, 30), (False, 1000)])
def test_class_weights_are_those_of_cross_entropy(made: Any, packed: bool, microbatch: int) -> None:
    """In the loss and its gradient; the accuracy counts every word alike."""
    model, store, weights = made("bert"), stored(), [0.25, 3.0, 1.0]
    _, scores = learnt_there(model)
    known = torch.tensor([tag for tags in TAGS for tag in tags if tag >= 0])
    loss = cross_entropy(scores, known, weight=torch.tensor(weights))
    loss.backward()
    expected = gradients(model)

    def made_loss(network: Any, passes: Passes) -> HeadLoss:
        return HeadLoss(network, TokenClassification(TokenClassificationConfig()), passes, OfTokens(LABELS, weights))

    score, ours = step_gradients(model, store, made_loss, packed=packed, microbatch=microbatch)
    assert score.loss == pytest.approx(loss.item(), rel=1e-5)
    assert score.metrics == {"accuracy": pytest.approx((scores.argmax(1) == known).float().mean().item())}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * largest, rtol=1e-4), name
    network, passes = model.get_base_model(), Passes(microbatch, packed, torch.device("cpu"))
    use_packing(network, Packing(packed))
    measured = made_loss(network, passes).evaluate(store, passes.all_groups(store), lambda done, every: None)
    of_each = [sum(weights[tag] for tag in tags if tag >= 0) for tags in TAGS]
    assert measured.loss == pytest.approx(loss.item(), rel=1e-5)
    assert np.average(measured.losses, weights=of_each) == pytest.approx(loss.item(), rel=1e-5)


def test_an_evaluation_is_the_mean_of_all_tokens(made: Any) -> None:
    model, store = made("bert"), stored()
    with torch.no_grad():
        loss, scores = learnt_there(model)
    network, passes = model.get_base_model(), Passes(10, True, torch.device("cpu"))
    use_packing(network, Packing(True))
    measured = HeadLoss(network, TokenClassification(TokenClassificationConfig()), passes, OfTokens(LABELS))
    found = measured.evaluate(store, passes.all_groups(store), lambda done, every: None)
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    together = np.average(found.losses, weights=store.loss_tokens)
    assert together == pytest.approx(loss.item(), rel=1e-5), "each record's loss is that of its own tokens"
    rest = iter(scores.argmax(1).tolist())
    true = [[LABELS[tag] for tag in tags if tag >= 0] for tags in TAGS]
    predicted = [[LABELS[next(rest)] for _ in tags] for tags in true]
    of_true, of_predicted = list(map(entities_in, true)), list(map(entities_in, predicted))
    both = sum(len(one & other) for one, other in zip(of_true, of_predicted, strict=True))
    expected = precision_recall_f1(both, sum(map(len, of_true)), sum(map(len, of_predicted)))
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    "tags,entities",
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("O O O B-MISC I-MISC I-MISC O B-PER I-PER", [("MISC", 3, 5), ("PER", 7, 8)]),
        ("I-PER I-PER O I-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),  # IOB1
        ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),  # conlleval begins one where the type changes
        ("O I-PER B-PER O", [("PER", 1, 1), ("PER", 2, 2)]),
        ("B-PER I-PER E-PER S-LOC O", [("PER", 0, 2), ("LOC", 3, 3)]),  # IOBES
        ("E-PER E-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("S-PER I-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("B-A-B I-A-B", [("A-B", 0, 1)]),
        ("O O", []),
    ],
)
def test_entities_are_those_of_conlleval(tags: str, entities: list[tuple[str, int, int]]) -> None:
    assert sorted(entities_in(tags.split())) == sorted(entities)


def test_figures_of_entities_and_of_other_tags() -> None:
    """The first are those of seqeval's own example: one of two entities is right."""
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    predicted = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    labels = ["B-MISC", "B-PER", "I-MISC", "I-PER", "O"]
    assert tagged(true, predicted, labels) == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    nothing = tagged([["O", "O"]], [["O", "O"]], labels)
    assert all(np.isnan(value) for value in nothing.values()), "no entity says nothing"
    assert tagged([["B-PER"]], [["O"]], labels) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    across = tagged([["B-PER"], ["I-PER"]], [["B-PER"], ["I-PER"]], labels)
    assert across["f1"] == 1 and not are_chunks(["NOUN", "O"]) and are_chunks(["I-PER", "O"])
    assert are_chunks(["B-A", "L-A", "U-A", "O"]) and not are_chunks(["L-A", "E-A"]), "BILOU and IOBES, but no mixture"
    bilou, iobes = ["U-A", "B-A", "I-A", "L-A", "L-A", "I-B"], ["S-A", "B-A", "I-A", "E-A", "E-A", "I-B"]
    assert entities_in(bilou) == entities_in(iobes) == {("A", 0, 0), ("A", 1, 3), ("A", 4, 4), ("B", 5, 5)}
    told = tagged([["NOUN", "VERB", "NOUN"]], [["NOUN", "NOUN", "NOUN"]], ["NOUN", "VERB"])
    assert told == {"macro_f1": pytest.approx(0.4)}


def tagged(true: list[list[str]], predicted: list[list[str]], labels: list[str]) -> dict[str, float]:
    numbers = torch.tensor([labels.index(tag) for tags in predicted for tag in tags])
    example = torch.tensor([number for number, tags in enumerate(true) for _ in tags])
    tags = torch.tensor([labels.index(tag) for row in true for tag in row])
    scores = TokenScores(torch.eye(len(labels))[numbers], tags, example, len(true), labels)
    objective = TokenClassification(TokenClassificationConfig())
    return dict(objective.overall(objective.kept(scores)))
