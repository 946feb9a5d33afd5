"""Losses and gradients of vectors equal those of sentence-transformers, through a peft LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_models import encoder_folder
from graftkit.interfaces.architecture import EMBEDDING_POOLING
from graftkit.interfaces.scores import SCORE, Embeddings, VectorPairs
from graftkit.model.packing import Packing, use_packing
from graftkit.store.token_store import SEQUENCE, Example, TokenStore
from graftkit.training.embedding_loss import Documents, EmbeddingLoss, Pairs
from graftkit.training.step_loss import Passes
from graftkit_objectives.config import EmbeddingObjectiveConfig, SimilarityObjectiveConfig
from graftkit_objectives.embedding import Embedding
from graftkit_objectives.similarity import Similarity
from reference import gradients, step_gradients
from torch.nn.functional import normalize

QUERIES = [[2, 40, 41, 9, 3], [2, 7, 3], [2, *range(20, 45), 3], [2, 30, 3]]
POSITIVES = [[2, 11, 3], [2, *range(5, 20), 3], [2, 9, 9, 3], [2, 33, 34, 35, 3]]
NEGATIVES = [[2, 12, 3], [2, 13, 14, 3], [2, 15, 16, 17, 3], [2, 50, 3]]
POOLING = {"mean": "mean", "cls": "cls", "lasttoken": "lasttoken"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns a model of transformers' without a head, with peft's LoRA, moved from its start."""

    @cache
    def model(kind: str) -> Any:
        from peft import LoraConfig, get_peft_model
        from transformers import CONFIG_MAPPING, AutoModel

        folder = tmp_path_factory.mktemp("models") / kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            if kind == "llama":
                sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
                AutoModel.from_config(CONFIG_MAPPING[kind](**sizes, vocab_size=64)).save_pretrained(folder)
            else:
                encoder_folder(folder, kind)
            network = AutoModel.from_pretrained(folder, dtype=torch.float32)
            config = LoraConfig(r=4, task_type="FEATURE_EXTRACTION", target_modules="all-linear")
            peft = get_peft_model(network, config)
            for name, parameter in peft.named_parameters():
                if name.endswith("lora_B.default.weight"):
                    torch.nn.init.normal_(parameter, std=0.3)
        return peft.eval()

    return model


def stored(*columns: list[list[int]], scores: Sequence[float] = ()) -> TokenStore:
    def example(number: int, *sequences: list[int]) -> Example:
        lengths = [len(ids) for ids in sequences]
        weights = np.concatenate([[0.0] * (length - 1) + [1.0] for length in lengths]).astype(np.float32)
        numbers = np.repeat(np.arange(len(sequences)), lengths).astype(np.uint8)
        ids, said = np.concatenate([np.array(ids) for ids in sequences]), scores[number : number + 1]
        return Example(ids, weights, 0, {SEQUENCE: numbers}, {SCORE: np.float32(said[0])} if said else {})

    return TokenStore.of(example(number, *row) for number, row in enumerate(zip(*columns, strict=True)))


def vectors_there(model: Any, pooling: str, rows: list[list[int]]) -> torch.Tensor:
    """Returns the vectors that sentence-transformers' pooling makes of a padded batch."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    model.get_base_model().set_attn_implementation("eager")
    longest = max(map(len, rows))
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in rows])
    ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in rows])
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = Pooling(states.shape[2], pooling_mode=pooling)({"token_embeddings": states, "attention_mask": mask})
    found: torch.Tensor = pooled["sentence_embedding"]
    return found


def loss_there(vectors: list[torch.Tensor], temperature: float) -> torch.Tensor:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    ranking = MultipleNegativesRankingLoss(None, scale=1 / temperature)
    loss: torch.Tensor = ranking.compute_loss_from_embeddings(vectors, None)
    return loss


@pytest.mark.parametrize(
    "kind,pooling,packed,microbatch",
    [
        *[("bert", pooling, True, 30) for pooling in POOLING],
        *[("llama", "lasttoken", True, 30), ("modernbert", "cls", True, 30), ("llama", "mean", False, 30)],
        *[("bert", "mean", True, 1000), ("distilbert", "mean", True, 12), ("roberta", "mean", True, 30)],
    ],
)
def test_vectors_of_a_step(made: Any, kind: str, pooling: str, packed: bool, microbatch: int) -> None:
    """However the step is cut into passes: each vector is compared with those of all."""
    model, store = made(kind), stored(QUERIES, POSITIVES, NEGATIVES)
    setattr(model.get_base_model().config, EMBEDDING_POOLING, pooling)
    model.zero_grad()
    there = [vectors_there(model, pooling, rows) for rows in (QUERIES, POSITIVES, NEGATIVES)]
    loss = loss_there(there, 0.1)
    loss.backward()
    expected = gradients(model)
    model.get_base_model().config.architectures = [type(model.get_base_model()).__name__]

    def made_loss(network: Any, passes: Passes) -> EmbeddingLoss:
        return EmbeddingLoss(network, Embedding(EmbeddingObjectiveConfig(temperature=0.1)), passes, Documents)

    score, ours = step_gradients(model, store, made_loss, packed=packed, microbatch=microbatch)
    assert score.loss == pytest.approx(loss.item(), rel=1e-5)
    queries, positives, negatives = (normalize(vectors.detach(), dim=1) for vectors in there)
    cosines = queries @ torch.cat([positives, negatives]).T
    ranks = 1 + (cosines > cosines.diagonal().unsqueeze(1)).sum(1)
    assert score.metrics["accuracy"] == pytest.approx((ranks == 1).float().mean().item())
    assert score.metrics["mrr"] == pytest.approx((1 / ranks).mean().item())
    assert score.metrics["cosine"] == pytest.approx(cosines.diagonal().mean().item(), rel=1e-4)
    assert score.tokens == sum(map(len, [*QUERIES, *POSITIVES, *NEGATIVES])) and score.loss_tokens == 12
    assert any("lora_A" in name for name in ours)
    assert_same_gradients(ours, expected)


def assert_same_gradients(ours: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert ours.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.allclose(ours[name], gradient, atol=2e-5 * largest, rtol=1e-4), name


NUMBERS = (0.5, 5.0, 0.5, -1.0)
"""Those of four pairs, of which two are alike."""


@pytest.mark.parametrize(
    "kind,pooling,packed,microbatch,dimensions",
    [
        *[("bert", "mean", True, 1000, []), ("bert", "cls", True, 20, []), ("llama", "lasttoken", False, 30, [])],
        ("modernbert", "mean", True, 30, [16, 4]),
    ],
)
def test_cosines_are_ranked_as_numbers(
    made: Any, kind: str, pooling: str, packed: bool, microbatch: int, dimensions: list[int]
) -> None:
    """As sentence-transformers' CoSENTLoss has it: the pairs of all passes are compared."""
    from scipy.stats import spearmanr
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss
    from sentence_transformers.util import pairwise_cos_sim

    model, store = made(kind), stored(QUERIES, POSITIVES, scores=NUMBERS)
    network, config = model.get_base_model(), SimilarityObjectiveConfig(temperature=0.1, dimensions=dimensions)
    setattr(network.config, EMBEDDING_POOLING, pooling)
    network.config.architectures = [type(network).__name__]
    model.zero_grad()
    first, second = (vectors_there(model, pooling, rows) for rows in (QUERIES, POSITIVES))
    ranking, numbers = CoSENTLoss(None, scale=10), torch.tensor(NUMBERS)
    parts = [[vectors[:, :width] for vectors in (first, second)] for width in (None, *dimensions)]
    loss = torch.stack([ranking.compute_loss_from_embeddings(part, numbers) for part in parts]).sum()
    loss.backward()
    expected = gradients(model)

    def made_loss(network: Any, passes: Passes) -> EmbeddingLoss:
        return EmbeddingLoss(network, Similarity(config), passes, Pairs)

    score, ours = step_gradients(model, store, made_loss, packed=packed, microbatch=microbatch)
    assert score.loss == pytest.approx(loss.item(), rel=1e-5)
    assert_same_gradients(ours, expected)
    cosines = pairwise_cos_sim(first.detach(), second.detach())
    passes = Passes(microbatch, packed, torch.device("cpu"))
    measured = made_loss(network, passes).evaluate(store, passes.all_groups(store), lambda done, every: None)
    assert measured.loss == pytest.approx(loss.item(), rel=1e-5) and len(measured.losses) == 4
    assert sum(measured.losses) / 4 == pytest.approx(measured.loss) and measured.tokens == score.tokens
    assert measured.metrics["cosine"] == pytest.approx(cosines.mean().item(), rel=1e-4)
    assert measured.metrics["spearman"] == pytest.approx(spearmanr(cosines, numbers).statistic)


def test_a_pairs_part_of_the_loss_is_that_of_its_terms() -> None:
    """By the sum as it is written, of cosines and numbers with ties; of equal numbers alone nothing is learnt."""
    random = torch.Generator().manual_seed(0)
    first, second = (normalize(torch.randn(40, 8, generator=random), dim=1).requires_grad_() for _ in range(2))
    numbers = torch.randint(0, 6, (40,), generator=random).float()
    objective, cosines = Similarity(SimilarityObjectiveConfig()), (first * second).sum(1).detach().double()
    terms = (20 * (cosines.unsqueeze(1) - cosines)).exp() * (numbers.unsqueeze(1) < numbers)
    parts = (terms.sum(0) + terms.sum(1)) / (2 * terms.sum()) * 40 * (1 + terms.sum()).log()
    assert torch.allclose(objective.losses(VectorPairs(first, second, {SCORE: numbers})).double(), parts, rtol=1e-4)
    alike = objective.losses(VectorPairs(first, second, {SCORE: torch.ones(40)}))
    assert not alike.any() and not any(part.any() for part in torch.autograd.grad(alike.sum(), (first, second)))
    kept = {"cosine": torch.zeros(40), "number": numbers}
    assert np.isnan(objective.overall(kept)["spearman"]), "there is no order of equal cosines"


def test_the_first_numbers_do_as_well() -> None:
    """As MatryoshkaLoss adds up the loss of all numbers, and of the first ones."""
    random = torch.Generator().manual_seed(0)
    drawn = [torch.randn(6, 16, generator=random, requires_grad=True) for _ in range(3)]
    expected = sum(loss_there([part[:, :width] for part in drawn], 0.05) for width in (16, 8, 4))
    assert isinstance(expected, torch.Tensor)
    gradient = torch.autograd.grad(expected, drawn)
    queries, *documents = (normalize(part, dim=1) for part in drawn)
    given = Embeddings(queries, torch.cat(documents), torch.arange(6), torch.ones(6, 12, dtype=torch.bool))
    losses = Embedding(EmbeddingObjectiveConfig(dimensions=[8, 4])).losses(given)
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    for found, wanted in zip(torch.autograd.grad(losses.mean(), drawn), gradient, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6, rtol=1e-4)


def test_the_same_text_is_no_negative(made: Any) -> None:
    """Nor is another document that is to be found by the same query, nor the query itself."""
    again, model = QUERIES[0], made("bert")
    store = stored(
        [QUERIES[0], QUERIES[1], again, QUERIES[3]],
        [POSITIVES[0], POSITIVES[0], POSITIVES[2], POSITIVES[3]],
        [NEGATIVES[0], NEGATIVES[1], NEGATIVES[2], QUERIES[3]],
    )
    seen: list[Embeddings] = []

    class Watching(Embedding):
        def losses(self, embeddings: Embeddings) -> torch.Tensor:
            seen.append(embeddings)
            return super().losses(embeddings)

    network = model.get_base_model()
    setattr(network.config, EMBEDDING_POOLING, "mean")
    network.config.architectures = ["BertModel"]
    passes = Passes(1000, True, torch.device("cpu"))
    use_packing(network, Packing(True))
    measured = EmbeddingLoss(network, Watching(EmbeddingObjectiveConfig()), passes, Documents)
    measured.evaluate(store, passes.all_groups(store), lambda done, every: None)
    [given] = seen
    assert given.positive.tolist() == [0, 2, 4, 6]  # documents: positive, negative of each example
    left_out = {(row, column) for row, column in (~given.compared).nonzero().tolist()}
    assert left_out == {(0, 2), (0, 4), (1, 0), (2, 0), (2, 2), (3, 7)}
    assert torch.equal(given.documents[0], given.documents[2])


def test_many_records_are_compared_some_at_a_time(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftkit.training import embedding_loss

    model, store = made("bert"), stored(QUERIES, POSITIVES, NEGATIVES)
    network, passes = model.get_base_model(), Passes(20, True, torch.device("cpu"))
    setattr(network.config, EMBEDDING_POOLING, "mean")
    network.config.architectures = ["BertModel"]
    use_packing(network, Packing(True))
    measured = EmbeddingLoss(network, Embedding(EmbeddingObjectiveConfig()), passes, Documents)
    whole = measured.evaluate(store, passes.all_groups(store), lambda done, every: None)
    monkeypatch.setattr(embedding_loss, "_MOST_COMPARED", 9)  # one query with eight documents
    parts = measured.evaluate(store, passes.all_groups(store), lambda done, every: None)
    assert parts.losses == pytest.approx(whole.losses) and len(parts.losses) == 4
    assert (parts.loss, parts.tokens, parts.loss_tokens) == (pytest.approx(whole.loss), whole.tokens, 12)
    assert parts.metrics == pytest.approx(whole.metrics)


def test_a_folder_of_sentence_transformers_says_how_vectors_are_made(tmp_path: Path) -> None:
    """What it writes today, and what it wrote before version 6."""
    import json

    from graftkit.errors import ModelError
    from graftkit.flow.base_files.sentence_settings import pooling_of, prompts_of
    from graftkit_models.huggingface import HuggingFaceSource
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    base = encoder_folder(tmp_path / "base", "bert")
    assert pooling_of(HuggingFaceSource().open(str(base))) == "mean"
    for number, mode in enumerate(POOLING):
        prompts = {"query": "query: "} if mode == "cls" else {}
        made = SentenceTransformer(
            modules=[Transformer(str(base)), Pooling(32, pooling_mode=mode), Normalize()], device="cpu", prompts=prompts
        )
        made.save(str(folder := tmp_path / str(number)))
        files = HuggingFaceSource().open(str(folder))
        assert (pooling_of(files), prompts_of(files)) == (mode, prompts)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert pooling_of(HuggingFaceSource().open(str(folder))) == "cls"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": ["cls", "mean"]}))
    with pytest.raises(ModelError, match="its vectors are made of cls and mean"):
        pooling_of(HuggingFaceSource().open(str(folder)))
    made = SentenceTransformer(modules=[Transformer(str(base)), Pooling(32), Dense(32, 8)], device="cpu")
    made.save(str(dense := tmp_path / "dense"))
    with pytest.raises(ModelError, match="its vectors go through a module Dense"):
        pooling_of(HuggingFaceSource().open(str(dense)))
    (dense / "modules.json").write_text('[{"type": 1}]')
    with pytest.raises(ModelError, match="it is no list of modules"):
        pooling_of(HuggingFaceSource().open(str(dense)))
