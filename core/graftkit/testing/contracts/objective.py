"""What every objective promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from torch.nn.functional import normalize

from graftkit.interfaces.objective import Overall
from graftkit.interfaces.objective_config import (
    AnyObjectiveConfig,
    EmbeddingConfig,
    SampledConfig,
    SimilarityConfig,
    TeacherConfig,
)
from graftkit.interfaces.scores import (
    ADVANTAGE,
    LABEL,
    LABELS,
    MEAN_TOKENS,
    SCORE,
    Embeddings,
    Scores,
    SequenceScores,
    TokenScores,
    VectorPairs,
)
from graftkit.recipe.bind import Choice
from graftkit.testing.contracts.base import Contract, choose

__all__ = ["ObjectiveContract"]

CLASSES = 3
"""How many labels texts have, or tags their words."""

AnyScores = Scores | SequenceScores | TokenScores | Embeddings | VectorPairs
"""What an objective is given: log-probabilities of tokens, a head's scores, or vectors, as its config says."""

TAGS = ("B-PER", "I-PER", "O")
"""The tags in the order of their numbers."""

TOKENS, CANDIDATES = 12, 5
"""How many tokens there are, and how many of them a teacher's scores are of."""

HIDDEN = 8
"""Numbers of a vector."""

MOST = 5
"""Examples of the largest scores that are tried."""


class ObjectiveContract(Contract):
    """Scores of many shapes are given to it, and its losses, metrics and gradients looked at.

    Example:
        >>> class TestMargin(ObjectiveContract):
        ...     provider = "margin"
    """

    kind = "objective"

    @cached_property
    def choice(self) -> Choice:
        """The provider and its fields; one that learns from a teacher is given the name of one, which nobody opens."""
        registry = self.host().registry
        model = registry.config_class(registry.resolve(self.kind, self.provider)) if self.provider else None
        named = {"teacher": "a teacher"} if model and issubclass(model, TeacherConfig) else {}
        return choose(self.host(), self.kind, self.provider, {**named, **self.options}) if named else super().choice

    @property
    def config(self) -> AnyObjectiveConfig:
        """What the provider's config model says of it."""
        config = self.choice.config
        assert isinstance(config, AnyObjectiveConfig)  # or the registry had refused it
        return config

    def scores(self, examples: int = MOST, *, seed: int = 0, scale: float = 1.0) -> AnyScores:
        """Returns scores as core gives them: of answers, or texts, of 1 to 7 tokens, or of sequences.

        Args:
            examples: How many.
            seed: What they are drawn from.
            scale: What a model's scores are multiplied by: the larger, the surer it is.
        """
        return make_scores(self.config, examples, seed=seed, scale=scale)

    def losses(self, scores: AnyScores) -> torch.Tensor:
        """Asks the provider."""
        losses: torch.Tensor = self.make().losses(scores)
        return losses

    @pytest.mark.parametrize("examples", [1, 2, MOST])
    def test_every_example_has_a_loss(self, examples: int) -> None:
        """`[examples]`, float32, finite: core takes the mean."""
        losses = self.losses(self.scores(examples))
        assert isinstance(losses, torch.Tensor), f"losses() returned a {type(losses).__name__}, no tensor"
        assert losses.shape == (examples,), f"losses() returned {list(losses.shape)} for {examples} examples"
        assert losses.dtype == torch.float32, f"losses are {losses.dtype}, not float32"
        assert losses.isfinite().all(), f"losses of ordinary scores are {losses.tolist()}"

    @pytest.mark.parametrize("scale", [0.0, 1e-6, 30.0])
    def test_losses_and_gradients_stay_finite(self, scale: float) -> None:
        """Where tokens are certain, and where an answer is as unlikely as a long one can be."""
        for seed in range(3):
            scores = self.scores(seed=seed, scale=scale)
            losses = self.losses(scores)
            assert losses.isfinite().all(), f"losses are {losses.tolist()} where scores are about {scale}"
            for gradient in gradients_of(losses, scores):
                assert gradient.isfinite().all(), f"a gradient is no number where scores are about {scale}"

    def test_there_is_something_to_learn(self) -> None:
        """The loss depends on the model: its gradient by the scores is not zero."""
        scores = self.scores()
        losses = self.losses(scores)
        assert losses.requires_grad, "the losses do not depend on the scores: nothing would be learnt"
        learnt = any(gradient.any() for gradient in gradients_of(losses, scores))
        assert learnt, "the gradient by every score is zero: nothing would be learnt"

    def test_a_step_down_the_gradient_lowers_the_loss(self) -> None:
        """With what a step's examples have in common held, as where a divergence is estimated of them."""
        if self.config.minimizes == "step":
            return
        for seed in range(3):
            scores = self.scores(seed=seed)
            before = self.losses(scores)
            gradients = gradients_of(before, scores)
            size = 1e-2 / float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
            moved = [(t.detach() - size * by).requires_grad_() for t, by in zip(given(scores), gradients, strict=True)]
            old, new = before.sum(), self.losses(with_given(scores, moved)).sum()
            assert new < old, f"a small step down the gradient takes the loss from {old:.6f} to {new:.6f}"

    def test_an_examples_loss_is_its_own(self) -> None:
        """Core computes examples pass by pass where the config says nothing else; how they are cut changes nothing."""
        if self.config.minimizes == "step":
            return
        scores = self.scores()
        together = self.losses(scores)
        alone = torch.cat([self.losses(of_examples(scores, [number])) for number in range(MOST)])
        assert torch.allclose(together, alone, atol=1e-5, rtol=1e-5), (
            "the loss of an example depends on those beside it: say minimizes = 'step' in the config"
        )

    def test_a_querys_loss_is_its_own(self) -> None:
        """Of many holdout records core asks of some queries at a time, with all documents."""
        scores = self.scores()
        if not isinstance(scores, Embeddings):
            return
        together = self.losses(scores)
        alone = torch.cat([self.losses(of_examples(scores, [number])) for number in range(MOST)])
        assert torch.allclose(together, alone, atol=1e-5, rtol=1e-5), "a query's loss depends on other queries"

    def test_documents_that_may_be_as_right_do_not_count(self) -> None:
        """Those are the ones that `Embeddings.compared` leaves out."""
        scores = self.scores()
        if not isinstance(scores, Embeddings):
            return
        other = normalize(torch.ones(HIDDEN), dim=0)
        for number, left_out in enumerate(~scores.compared):
            row = of_examples(scores, [number])
            assert isinstance(row, Embeddings)
            documents = torch.where(left_out.unsqueeze(1), other, scores.documents.detach())
            same = torch.allclose(self.losses(row), self.losses(replace(row, documents=documents)), atol=1e-6)
            assert same, "losses() compares a query with a document that `compared` leaves out"

    def test_the_order_of_examples_changes_nothing(self) -> None:
        """Which record comes first in a step is chance."""
        scores = self.scores()
        turned = list(reversed(range(MOST)))
        losses = self.losses(of_examples(scores, turned))
        assert torch.allclose(self.losses(scores)[turned], losses, atol=1e-5, rtol=1e-5), (
            "in another order the same examples have other losses"
        )

    def test_likelihood_is_what_it_says(self) -> None:
        """Core computes it itself where the config minimizes the likelihood, and does not ask."""
        if self.config.minimizes != "likelihood":
            return
        scores = self.scores()
        assert isinstance(scores, Scores)
        expected = -scores.sums().sum(1)
        assert torch.allclose(self.losses(scores), expected, rtol=1e-5), (
            "the config says minimizes = 'likelihood', but losses() is not the negative log-likelihood"
        )

    def test_means_over_tokens_are_of_sums(self) -> None:
        """A token of half the weight counts half, where that mean is minimized: core divides by weights."""
        if self.config.minimizes != "tokens":
            return
        scores = self.scores()
        if isinstance(scores, TokenScores):
            places = torch.arange(len(scores.tags))
            each = [self.losses(of_tokens(scores, places == place)) for place in places]
            assert torch.allclose(self.losses(scores).sum(), torch.cat(each).sum(), rtol=1e-5, atol=1e-6), (
                "the config says minimizes = 'tokens', but losses() is no sum over an example's tokens"
            )
            return
        assert isinstance(scores, Scores)
        halved = replace(scores, weights=scores.weights / 2)
        assert torch.allclose(self.losses(halved), self.losses(scores) / 2, rtol=1e-5, atol=1e-6), (
            "the config says minimizes = 'tokens', but losses() is no sum over tokens of their weights times something"
        )

    def test_metrics_are_numbers_of_examples(self) -> None:
        """By the same names each time, `[examples]` each, so that means can be taken over a step."""
        objective = self.make()
        names = {tuple(sorted(objective.metrics(self.scores(count, seed=count)))) for count in (1, 2, MOST)}
        assert len(names) == 1, f"metrics() gives {names} for different examples"
        with torch.no_grad():
            for name, values in objective.metrics(self.scores()).items():
                assert values.shape == (MOST,), f"the metric {name} is {list(values.shape)} for {MOST} examples"
                assert not values.isinf().any(), f"the metric {name} is infinite"

    def test_figures_of_all_examples_are_numbers(self) -> None:
        """By the same names each time, whatever the order of the records is, where it has any."""
        objective, scores = self.make(), self.scores()
        if not isinstance(objective, Overall) or isinstance(scores, Scores):
            return
        with torch.no_grad():
            turned, told = (
                objective.overall(kept_of(objective, each))
                for each in (of_examples(scores, list(reversed(range(MOST)))), scores)
            )
        assert told.keys() == turned.keys(), f"overall() gives {[*told]} and, in another order, {[*turned]}"
        for name, value in told.items():
            assert isinstance(value, int | float), f"overall() gives a {type(value).__name__} as {name}, no number"
            assert turned[name] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), (
                f"in another order of the examples {name} is another number"
            )

    def test_weights_of_labels_are_numbers(self) -> None:
        """Above 0, of labels alone, in fields of the same class, once they know how many records have each label."""
        counts = {f"label {number}": number + 1 for number in range(CLASSES)}
        try:
            known = counts if self.config.names_labels else {}
            settled = self.config.for_records(known, sum(counts.values()))
        except ValueError:  # the fields name labels that these records do not have
            settled = self.config
        named = type(self.config).__name__
        assert type(settled) is type(self.config), f"for_records() gives a {type(settled).__name__}, not a {named}"
        awaits = settled is not self.config and settled.awaits_records
        assert not awaits, "awaits_records is still true once for_records() has filled in the fields"
        weights = settled.label_weights
        numbers = all(isinstance(weight, int | float) and 0 < weight < float("inf") for weight in weights.values())
        assert numbers, f"label_weights are {dict(weights)}: a number above 0 is due for each label"
        told = "label_weights are of objectives that learn from labels, sets of them, or tags"
        assert not weights or settled.names_labels, told

    def test_losses_are_multiplied_by_the_weights_of_labels(self) -> None:
        """Once, where a text or a word has the label: core divides their sum by the sum of the weights."""
        scores, row = self.scores(), torch.linspace(0.5, 2, CLASSES)
        if isinstance(scores, Scores | Embeddings | VectorPairs) or not self.config.label_weights:
            return
        plain, weighed = self.losses(scores), self.losses(replace(scores, label_weights=row))
        assert not torch.equal(plain, weighed), "losses() leaves out the label_weights"
        if self.config.learns_from != "label_sets":
            doubled = self.losses(replace(scores, label_weights=2 * row))
            torch.testing.assert_close(doubled, 2 * weighed, msg="losses() does not multiply by the label_weights once")
            alike = self.losses(replace(scores, label_weights=torch.full((CLASSES,), 2.0)))
            torch.testing.assert_close(alike, 2 * plain, msg="losses() does not multiply by the label_weights once")
        if self.config.learns_from == "labels":
            of_own = row[scores.by_example[LABEL].long()]
            torch.testing.assert_close(
                weighed, plain * of_own, msg="losses() multiplies by the weight of another label"
            )

    def test_advantages_compare_answers(self) -> None:
        """`[prompts, group_size]`, floating-point; of answers to a prompt the larger, the more they are worth."""
        if not isinstance(self.config, SampledConfig):
            return
        objective, size = self.make(), self.config.group_size
        rewards = torch.randn(MOST, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        kept, found = rewards.clone(), objective.advantages(rewards)
        assert torch.equal(rewards, kept), "advantages() changes the rewards that it is given"
        assert isinstance(found, torch.Tensor), f"advantages() returned a {type(found).__name__}, no tensor"
        shape = f"{list(found.shape)} {found.dtype}"
        assert found.shape == rewards.shape and found.is_floating_point(), f"advantages are {shape}"
        assert found.isfinite().all(), "an advantage is no number"
        same_order = torch.equal(rewards.argsort(1), found.argsort(1))
        assert same_order, "an answer that is worth more than another to the same prompt has a smaller advantage"
        assert torch.equal(found, objective.advantages(rewards)), "the same rewards give other advantages"

    def test_likelier_answers_have_the_larger_advantage(self) -> None:
        """A step down the gradient makes an answer likelier whose advantage is above 0, and the others less likely."""
        if not isinstance(self.config, SampledConfig):
            return
        scores = self.scores()
        assert isinstance(scores, Scores)
        if self.config.compares_with_start:  # as in the first step, where nothing else moves the model
            scores = replace(scores, reference=scores.logps.detach())
        if scores.old is not None:
            scores = replace(scores, old=scores.logps.detach())
        [gradient] = gradients_of(self.losses(scores), scores)
        signs = gradient.new_zeros(MOST).index_add(0, scores.sequence, gradient).sign()
        assert torch.equal(signs, -scores.by_example[ADVANTAGE].sign()), "it learns what is worth less"

    def test_what_it_is_given_stays_as_it_is(self) -> None:
        """Core goes on with the scores, and with the process's random state."""
        scores = self.scores()
        kept = [value.clone() for value in tensors_of(scores)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            before = torch.get_rng_state()
            objective = self.make()
            objective.losses(scores)
            objective.metrics(scores)
            assert torch.equal(before, torch.get_rng_state()), "it draws from torch's global random state"
        same = all(torch.equal(a, b) for a, b in zip(kept, tensors_of(scores), strict=True))
        assert same, "losses() or metrics() changes the scores that it is given"

    def test_the_same_scores_have_the_same_losses(self) -> None:
        """From the same object and from another."""
        scores = self.scores()
        objective = self.make()
        first, second = objective.losses(scores), objective.losses(scores)
        assert torch.equal(first, second), "asked twice, one object gives other losses"
        assert torch.equal(first, self.losses(scores)), "another object gives other losses"


def make_scores(config: AnyObjectiveConfig, examples: int, *, seed: int = 0, scale: float = 1.0) -> AnyScores:
    """Returns random scores of the shape that an objective asks for.

    Args:
        config: The objective's.
        examples: How many examples.
        seed: Of the numbers.
        scale: About how unlikely a token is, in nats; or how large a sequence's scores are.
    """
    random = torch.Generator().manual_seed(seed)
    if isinstance(config, SimilarityConfig):
        first, second = (random_vectors(examples, random, scale) for _ in range(2))
        return VectorPairs(first, second, made_targets(config, examples))
    if isinstance(config, EmbeddingConfig):
        return made_vectors(examples, random, scale)
    per_example = config.sequences
    if config.head == "sequence":
        outputs = CLASSES if config.learns_from in ("labels", "label_sets") else 1
        values = scale * torch.randn(examples, per_example, outputs, generator=random)
        return SequenceScores(values.requires_grad_(), made_targets(config, examples))
    lengths = torch.randint(1, 8, (examples * per_example,), generator=random)
    tokens = int(lengths.sum())
    if config.head == "token":
        values = scale * torch.randn(tokens, CLASSES, generator=random)
        tags = torch.randint(0, CLASSES, (tokens,), generator=random)
        example = torch.repeat_interleave(torch.arange(examples), lengths)
        return TokenScores(values.requires_grad_(), tags, example, examples, TAGS)

    def logps() -> torch.Tensor:
        return -scale * torch.rand(tokens, generator=random)

    wanted = torch.arange(examples) % 2
    candidates, teacher = made_candidates(tokens, scale, random) if isinstance(config, TeacherConfig) else (None, None)
    return Scores(
        logps=logps().requires_grad_(),
        weights=torch.where(torch.rand(tokens, generator=random) < 0.8, 1.0, 0.5),
        sequence=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
        sequences=per_example,
        examples=examples,
        reference=logps() if compares_with_start(config) else None,
        old=logps() if isinstance(config, SampledConfig) and config.num_iterations > 1 else None,
        candidates=candidates,
        teacher=teacher,
        by_example={"wanted": wanted.to(torch.uint8)}
        if config.learns_from == "labelled"
        else made_advantages(config, examples, tokens),
    )


def made_vectors(examples: int, random: torch.Generator, scale: float) -> Embeddings:
    """Returns vectors of queries, and of documents, of which each query has one and shares the others as negatives.

    Args:
        examples: How many queries.
        random: What they are drawn from.
        scale: How far apart they are, from one that all are near.
    """
    positive = torch.arange(examples).flip(0)
    compared = torch.rand(examples, 2 * examples, generator=random) < 0.8
    compared[torch.arange(examples), positive] = True
    queries, documents = (random_vectors(count, random, scale) for count in (examples, 2 * examples))
    return Embeddings(queries, documents, positive, compared)


def random_vectors(count: int, random: torch.Generator, scale: float) -> torch.Tensor:
    """Returns vectors of the length 1, of which a gradient is taken, `[count, HIDDEN]`.

    Args:
        count: How many.
        random: What they are drawn from.
        scale: How far apart they are, from one that all are near.
    """
    return normalize(0.1 + scale * torch.randn(count, HIDDEN, generator=random), dim=1).requires_grad_()


def kept_of(objective: Overall, scores: AnyScores) -> dict[str, torch.Tensor]:
    """Returns what an objective keeps of scores, as core gives it back.

    Args:
        objective: The objective.
        scores: The scores.
    """
    kept = objective.kept(detached(scores))
    assert kept and all(isinstance(name, str) for name in kept), f"kept() gives {kept!r}: names with numbers are due"
    for name, values in kept.items():
        shape = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        rows = isinstance(values, torch.Tensor) and values.ndim > 0 and len(values) == len(of_each(scores))
        assert rows, f"kept() gives {shape} as {name}: a row each is due of {len(of_each(scores))} examples"
    return {name: values.double() if values.is_floating_point() else values.long() for name, values in kept.items()}


def of_each(scores: AnyScores) -> range:
    """Returns the numbers of the examples that scores are of."""
    if isinstance(scores, Embeddings | VectorPairs):
        return range(len(given(scores)[0]))
    return range(len(scores.values) if isinstance(scores, SequenceScores) else scores.examples)


def compares_with_start(config: AnyObjectiveConfig) -> bool:
    """Tells whether an objective is given what the model says as training starts."""
    return config.uses_reference or (isinstance(config, SampledConfig) and config.compares_with_start)


def made_advantages(config: AnyObjectiveConfig, examples: int, tokens: int) -> dict[str, torch.Tensor]:
    """Returns what core says of sampled answers; nothing for an objective that learns from something else.

    Args:
        config: The objective's.
        examples: How many answers.
        tokens: How many tokens they have together.
    """
    if not isinstance(config, SampledConfig):
        return {}
    numbers = torch.arange(examples)
    return {
        ADVANTAGE: (numbers % 2 - 0.5) * (numbers + 1) / examples,
        MEAN_TOKENS: torch.full((examples,), tokens / examples),
    }


def made_targets(config: AnyObjectiveConfig, examples: int) -> dict[str, torch.Tensor]:
    """Returns what an objective learns of texts as wholes: labels, sets of them, or numbers; nothing for another one.

    Args:
        config: The objective's.
        examples: How many examples.
    """
    numbers = torch.arange(examples)
    if config.learns_from == "labels":
        return {LABEL: (numbers % CLASSES).to(torch.int32)}
    if config.learns_from == "label_sets":
        return {LABELS: ((numbers[:, None] >> torch.arange(CLASSES)) & 1).to(torch.uint8)}
    return {SCORE: numbers / 2 - 1} if config.learns_from in ("scores", "scored_pairs") else {}


def made_candidates(tokens: int, scale: float, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a model's log-probabilities of the tokens that a teacher finds likeliest, and the teacher's.

    Args:
        tokens: How many places.
        scale: What both models' scores are multiplied by.
        random: What they are drawn from.
    """
    model = (scale * torch.randn(tokens, TOKENS, generator=random)).log_softmax(1)
    teacher, ids = (scale * torch.randn(tokens, TOKENS, generator=random)).log_softmax(1).topk(CANDIDATES, 1)
    return model.gather(1, ids).requires_grad_(), teacher


def given(scores: AnyScores) -> list[torch.Tensor]:
    """Returns what gradients are taken by."""
    if isinstance(scores, Embeddings):
        return [scores.queries, scores.documents]
    if isinstance(scores, VectorPairs):
        return [scores.first, scores.second]
    if not isinstance(scores, Scores):
        return [scores.values]
    return [scores.logps] if scores.candidates is None else [scores.logps, scores.candidates]


def gradients_of(losses: torch.Tensor, scores: AnyScores) -> Sequence[torch.Tensor]:
    """Returns the gradient of the sum of losses by each of them, zeros where it is not used."""
    inputs = given(scores)
    return torch.autograd.grad(losses.sum(), inputs, materialize_grads=len(inputs) > 1)


def with_given(scores: AnyScores, tensors: Sequence[torch.Tensor]) -> AnyScores:
    """Returns the scores with other tensors in their place."""
    if isinstance(scores, Embeddings):
        return replace(scores, queries=tensors[0], documents=tensors[1])
    if isinstance(scores, VectorPairs):
        return replace(scores, first=tensors[0], second=tensors[1])
    if not isinstance(scores, Scores):
        return replace(scores, values=tensors[0])
    return replace(scores, logps=tensors[0], candidates=tensors[1] if len(tensors) > 1 else None)


def of_examples(scores: AnyScores, numbers: Sequence[int]) -> AnyScores:
    """Returns the scores of some examples, in the order of their numbers."""
    if isinstance(scores, Embeddings):
        at = torch.tensor(numbers)
        queries = scores.queries.detach()[at].requires_grad_()
        return replace(scores, queries=queries, positive=scores.positive[at], compared=scores.compared[at])
    by_example = {name: values[list(numbers)] for name, values in scores.by_example.items()}
    if isinstance(scores, VectorPairs):
        first, second = (vectors.detach()[list(numbers)].requires_grad_() for vectors in given(scores))
        return VectorPairs(first, second, by_example)
    if isinstance(scores, SequenceScores):
        values = scores.values.detach()[list(numbers)].requires_grad_()
        return SequenceScores(values, by_example, scores.label_weights)
    if isinstance(scores, TokenScores):
        at = torch.cat([(scores.example == number).nonzero().squeeze(1) for number in numbers])
        counts = torch.tensor([int((scores.example == number).sum()) for number in numbers])
        values, example = scores.values.detach()[at], torch.repeat_interleave(torch.arange(len(counts)), counts)
        return replace(
            scores,
            values=values.requires_grad_(),
            tags=scores.tags[at],
            example=example,
            examples=len(numbers),
            by_example=by_example,
        )
    wanted = [number * scores.sequences + n for number in numbers for n in range(scores.sequences)]
    places = [(scores.sequence == sequence).nonzero().squeeze(1) for sequence in wanted]
    at = torch.cat(places)
    return Scores(
        logps=scores.logps.detach()[at].requires_grad_(),
        weights=scores.weights[at],
        sequence=torch.repeat_interleave(torch.arange(len(wanted)), torch.tensor([len(place) for place in places])),
        sequences=scores.sequences,
        examples=len(numbers),
        reference=None if scores.reference is None else scores.reference[at],
        old=None if scores.old is None else scores.old[at],
        candidates=None if scores.candidates is None else scores.candidates.detach()[at].requires_grad_(),
        teacher=None if scores.teacher is None else scores.teacher[at],
        by_example=by_example,
    )


def of_tokens(scores: TokenScores, kept: torch.Tensor) -> TokenScores:
    """Returns some tokens of an example alone.

    Args:
        scores: The scores.
        kept: Which of their tokens are kept, all of one example.
    """
    tags = scores.tags[kept]
    return replace(scores, values=scores.values[kept], tags=tags, example=torch.zeros_like(tags), examples=1)


def detached(scores: AnyScores) -> AnyScores:
    """Returns scores without a gradient."""
    return with_given(scores, [tensor.detach() for tensor in given(scores)])


def tensors_of(scores: AnyScores) -> Iterator[torch.Tensor]:
    """Yields every tensor of some scores."""
    yield from (tensor.detach() for tensor in given(scores))
    if isinstance(scores, Embeddings):
        yield from (scores.positive, scores.compared)
        return
    yield from scores.by_example.values()
    if isinstance(scores, TokenScores):
        yield from (scores.tags, scores.example)
    if isinstance(scores, SequenceScores | TokenScores) and scores.label_weights is not None:
        yield scores.label_weights
    if isinstance(scores, Scores):
        yield from (scores.weights, scores.sequence)
        yield from (tensor for tensor in (scores.reference, scores.old, scores.teacher) if tensor is not None)
