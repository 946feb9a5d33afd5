"""Evaluates a model on holdout examples while it is trained, and says which step is best and when to stop."""

from __future__ import annotations

import math
import random
import time
from functools import cached_property

from graftkit.errors import LossError
from graftkit.flow.events import HoldoutMeasured
from graftkit.flow.folders.metrics import Evaluation, Metrics, to_line
from graftkit.flow.state.context import RunContext
from graftkit.host.lifecycle import EvaluationInfo
from graftkit.recipe.schema.evaluation import EvaluationSection
from graftkit.store.fingerprint import derived_seed
from graftkit.store.line_file import LineFile
from graftkit.store.token_store import TokenStore
from graftkit.training.early_stop import best_step, evaluations_without_gain
from graftkit.training.loop import Trainer

__all__ = ["HoldoutWatch", "sample_of"]


def sample_of(holdout: TokenStore, options: EvaluationSection, seed: int) -> TokenStore:
    """Returns the holdout examples that are evaluated while the model is trained, the same ones each time.

    Args:
        holdout: All of them.
        options: Says how many.
        seed: The run's.
    """
    if options.sample == "all" or options.sample >= len(holdout):
        return holdout
    draw = random.Random(derived_seed(seed, "holdout sample"))
    return TokenStore.of(holdout[example] for example in sorted(draw.sample(range(len(holdout)), options.sample)))


class HoldoutWatch:
    """Measures the holdout loss after every so many steps and after the last; what follows depends on its lines alone.

    So a run that goes on has the same lines, the same best step, and stops at the same one, as one that never stopped.

    Args:
        run: The run.
        trainer: What takes its steps.
        holdout: The holdout examples.
        lines: Where each evaluation becomes a line.
        known: What there is in that file.
        since: Patience counts the evaluations after this step: the run had finished after it, and goes on.

    Attributes:
        lines: Where each evaluation becomes a line.
        evaluations: What was measured so far.
    """

    def __init__(
        self,
        run: RunContext,
        trainer: Trainer,
        holdout: TokenStore,
        lines: LineFile,
        known: Metrics,
        since: int = 0,
    ) -> None:
        self.lines, self.evaluations = lines, list(known.evaluations)
        self._run, self._trainer, self._holdout, self._since = run, trainer, holdout, since
        self._options = run.plan.bound.recipe.evaluation

    @property
    def losses(self) -> dict[int, float]:
        """The holdout loss after each step that was evaluated."""
        return {line.step: line.holdout_loss for line in self.evaluations}

    @property
    def best(self) -> int | None:
        """The step with the lowest holdout loss so far, where the recipe exports that one."""
        return best_step(self.losses) if self._options.exports_best else None

    @property
    def waited(self) -> bool:
        """Whether the recipe's patience is at its end."""
        counted = [loss for step, loss in self.losses.items() if step > self._since]
        patience = self._options.patience
        return patience is not None and evaluations_without_gain(counted, self._options.min_delta) >= patience

    @cached_property
    def _sample(self) -> TokenStore:
        return sample_of(self._holdout, self._options, self._run.plan.bound.recipe.training.seed)

    def after_step(self) -> None:
        """Evaluates where it is time to and there is no line of it yet; asks the trainer to stop once it has waited.

        Raises:
            LossError: The holdout loss is no number.
        """
        step, steps, every = self._trainer.step, len(self._trainer.plan), self._options.every
        if every and step and len(self._holdout) and step not in self.losses and (step % every == 0 or step == steps):
            self._evaluate(step, steps)
        self._trainer.stopped = self.waited

    def _evaluate(self, step: int, steps: int) -> None:
        start = time.perf_counter()
        loss = self._trainer.holdout_loss(self._sample, self._run.poll)
        if not math.isfinite(loss):
            error = LossError(f"after step {step} the holdout loss is {loss}")
            error.step, error.good = step + 1, max(0, step - 1)  # the next one is not taken
            raise error
        found = Evaluation(step, loss, len(self._sample), time.perf_counter() - start)
        self.lines.append(to_line(found))
        self.evaluations.append(found)
        self._run.emit(HoldoutMeasured(step, steps, loss, found.examples))
        self._run.broadcast("graftkit_evaluation_finished", evaluation=EvaluationInfo("training", step, loss))
