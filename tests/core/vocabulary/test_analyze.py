"""An analysis says what extending really gives on texts that it did not learn from, and advises by its rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftkit import PluginHost
from graftkit.flow.base_files.find_tokenizer import default_backend, find_tokenizer
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtendableBackend, ExtensionPlan, ExtensionSpec
from graftkit.testing import tiny_tokenizer_files
from graftkit.vocabulary.analyze import Analysis, Point, analyze
from graftkit.vocabulary.cost import EmbeddingCost, embedding_cost
from graftkit.vocabulary.measure import Measured, measure

LEARN = [f"the rain in spain number {n} stays mainly in the plain\n" for n in range(300)]
HELD_OUT = [f"in the plain of spain the rain {n} stays\n" for n in range(60)]


@pytest.fixture
def tools(tmp_path: Path) -> tuple[Tokenizer, ExtendableBackend]:
    for name, data in tiny_tokenizer_files().items():
        (tmp_path / name).write_bytes(data)
    host = PluginHost()
    found = find_tokenizer(host, str(tmp_path))
    backend = default_backend(host, found.registered)
    assert isinstance(backend, ExtendableBackend)
    return found.tokenizer, backend


def test_every_point_is_what_extending_by_so_many_gives(tools: tuple[Tokenizer, ExtendableBackend]) -> None:
    base, backend = tools
    asked: list[int] = []

    def extend(count: int) -> ExtensionPlan:
        asked.append(count)
        return backend.extend(base, LEARN, ExtensionSpec(count))

    found = analyze(base, extend, HELD_OUT, [20, 5, 50, 20], cost=EmbeddingCost(270, 64, 2, 10_000))
    assert asked == [50] and [point.asked for point in found.points] == [5, 20, 50], "the most are learnt once"
    for point in found.points:
        plan = extend(point.asked)
        alone = measure(plan.tokenizer, HELD_OUT)
        assert (point.added, point.tokens, point.scaffolding) == (
            len(plan.tokens),
            alone.tokens,
            len(plan.scaffolding),
        )
        assert point.used == sum(token.id in alone.counts for token in plan.tokens) / len(plan.tokens)
        assert point.saved == 1 - alone.tokens / measure(base, HELD_OUT).tokens > 0
        assert point.parameters == max(0, plan.tokenizer.vocab_size - 270) * 64 * 2
    assert found.points[0].parameters == 0, "spare rows come first"


def test_no_more_is_told_than_the_texts_give(tools: tuple[Tokenizer, ExtendableBackend]) -> None:
    base, backend = tools
    found = analyze(base, lambda n: backend.extend(base, LEARN[:2], ExtensionSpec(n)), HELD_OUT, [5, 500, 5000])
    learnt = len(found.plan.tokens)
    assert 5 < learnt < 500 and [point.asked for point in found.points] == [5, learnt]


class _Recutting:
    """A family whose smaller extensions do not follow from the largest: each is asked for by itself."""

    def __init__(self, plan: ExtensionPlan) -> None:
        self.plan = plan

    def __call__(self, count: int) -> ExtensionPlan:
        tokens = self.plan.tokens[:count]
        return ExtensionPlan(self.plan.tokenizer, tokens, False, 100, 90)


def test_a_family_that_cuts_anew_is_extended_for_each_number(tools: tuple[Tokenizer, ExtendableBackend]) -> None:
    base, backend = tools
    recutting = _Recutting(backend.extend(base, LEARN, ExtensionSpec(30)))
    found = analyze(base, recutting, HELD_OUT, [10, 30])
    assert [point.added for point in found.points] == [10, 30] and not found.coarsens
    assert found.points[0].parameters is None


def analysis(*saved: float) -> Analysis:
    points = [Point(n * 100, n * 100, 0, 0.0, share, 0.0, 0, None) for n, share in enumerate(saved, 1)]
    plan = ExtensionPlan(None, (), True, 0, 0)  # type: ignore[arg-type]
    nothing = Measured(0, {}, 0, 0, {}, 0.0)
    return Analysis(0, nothing, nothing, tuple(points), True, plan)


@pytest.mark.parametrize(
    ("saved", "advised"),
    [
        ((0.01, 0.02, 0.0299), None),
        ((0.02, 0.03), 200),
        ((0.05, 0.079, 0.081, 0.1), 300),
        ((0.081, 0.09, 0.1), 100),
        ((-0.02, -0.01), None),
        ((0.06, 0.05), 100),
    ],
)
def test_the_smallest_number_with_most_of_the_saving_is_advised(saved: tuple[float, ...], advised: int | None) -> None:
    found = analysis(*saved)
    assert (found.advice and found.advice.asked) == advised
    assert found.to_json()["advised_tokens"] == advised and found.to_json()["worth_it"] is (advised is not None)


def test_what_a_token_costs_is_read_from_the_models_headers(tiny_model: Path) -> None:
    model = find_tokenizer(PluginHost(), str(tiny_model)).model
    assert model is not None
    cost = embedding_cost(model)
    assert cost is not None and (cost.rows, cost.hidden, cost.matrices) == (320, 64, 1)
    assert cost.added(259) == 0 and cost.added(330) == 10 * 64
