"""The negative log-likelihood of the tokens in the loss, with few logits in memory at a time.

Logits are the widest thing that training makes: `[tokens, vocabulary]`, several times over with their logarithms and
gradients. Here the model's body runs once, and its output layer on one piece of the hidden states after the other,
forward and backward, so that only a piece's logits exist. That takes a model whose logits are its output layer's
scores and nothing else. A first look at the model finds that out; where they are more, as where they are capped, the
model's own forward makes all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax

from graftkit.interfaces.architecture import head_of
from graftkit.interfaces.forward import logits_at
from graftkit.model.head import body_gives
from graftkit.model.packing import forward_inputs
from graftkit.training.batch import PackedBatch
from graftkit.training.nll import summed_nll

__all__ = ["Candidates", "ScoredPass", "TokenLoss", "summed_loss"]

_LOGITS_AT_ONCE = {"cpu": 2**23}
"""Numbers that a piece's logits are at most: what a CPU's cache holds; elsewhere larger pieces pay."""
_LOGITS_ELSEWHERE = 2**27
_LOOKED_AT = 8


_Piece = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def summed_loss(
    network: nn.Module, batch: PackedBatch, *, packed: bool = True, temperature: float = 1.0
) -> torch.Tensor:
    """Returns the weighted sum over the batch's tokens in the loss, in nats, all logits at once; a scalar, float32.

    Args:
        network: A transformers causal language model.
        batch: The sequences; exactly one where `packed` is False.
        packed: Whether the network's attention is the packed one.
        temperature: What logits are divided by.
    """
    logits = logits_at(network, forward_inputs(batch.sequences, packed=packed), batch.logit_positions)
    logits = divided(logits, temperature)
    if batch.weights is None:
        return cross_entropy(logits.float(), batch.labels, reduction="sum")
    return (cross_entropy(logits.float(), batch.labels, reduction="none") * batch.weights).sum()


def divided(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Returns logits that are divided by a temperature, in float32; those of 1 as they are."""
    return logits if temperature == 1 else logits.float() / temperature


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens that might stand in the place of each token in the loss.

    Attributes:
        ids: Of each place the same number, `[loss tokens, k]`, int64.
        temperature: What logits are divided by before their log-probabilities are taken.
    """

    ids: torch.Tensor
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class ScoredPass:
    """A pass whose tokens have been scored.

    Attributes:
        logps: The log-probability of each token in the loss, in nats, `[loss tokens]`, float32, without a gradient.
        candidates: Those of the candidates for its place, `[loss tokens, k]`, likewise; None where none were asked for.
        backward: Takes the gradient of a loss by each of them, of the same shapes, and adds that by the parameters to
            theirs. May be called once, and not at all where the pass was run without one.
    """

    logps: torch.Tensor
    candidates: torch.Tensor | None
    backward: Callable[[torch.Tensor, torch.Tensor | None], None]


class TokenLoss:
    """What `summed_loss` computes and its gradient, piece by piece.

    Args:
        network: A transformers causal language model.
        packed: Whether its attention is the packed one; otherwise each batch holds one sequence.
        temperature: What logits are divided by before their log-probabilities are taken.
    """

    def __init__(self, network: nn.Module, *, packed: bool = True, temperature: float = 1.0) -> None:
        self._network: Any = network
        self._temperature = temperature
        self._packed = packed
        self._plain_head: bool | None = None
        named = getattr(getattr(network, "config", None), "architectures", None)
        self._masked = head_of({"architectures": named}) == "masked"

    def logits(self, batch: PackedBatch) -> Callable[[], Iterator[torch.Tensor]]:
        """Runs the body, and returns what makes the logits that predict the tokens in the loss, without a gradient.

        Returns:
            It may be called more than once; each time it gives `[some, vocabulary]`, float32, piece by piece in the
            batch's order, cut at the same places for every batch of the same size.
        """
        with torch.no_grad():
            if not self._in_pieces(batch):
                whole = logits_at(self._network, self._inputs(batch.sequences), batch.logit_positions).float()
                return lambda: iter([whole])
            hidden = self._hidden(batch)

        def pieces() -> Iterator[torch.Tensor]:
            for states, _, _ in self._pieces(hidden, batch):
                with torch.no_grad():
                    yield self._scores(states).float()

        return pieces

    def score(self, batch: PackedBatch, *, learn: bool, candidates: Candidates | None = None) -> ScoredPass:
        """Runs the body, and scores the tokens in the loss a piece of the logits at a time.

        Args:
            batch: The examples.
            learn: Whether a gradient may be asked for.
            candidates: What is scored besides.
        """
        with torch.set_grad_enabled(learn):
            if not self._in_pieces(batch):
                logits = self._divided(logits_at(self._network, self._inputs(batch.sequences), batch.logit_positions))
                ids, temperature = (candidates.ids, candidates.temperature) if candidates else (None, 1.0)
                logps, others = _selected(logits, batch.labels, ids, temperature)
                return ScoredPass(
                    logps.detach(),
                    None if others is None else others.detach(),
                    lambda by_logps, by_others: _backward(logps, by_logps, others, by_others),
                )
            hidden = self._hidden(batch)
        drawn = _RandomState.of(hidden.device)

        def backward(by_logps: torch.Tensor, by_others: torch.Tensor | None) -> None:
            with drawn.again():  # dropout before an adapted output layer leaves out what it left out of the scores
                if candidates is None:
                    self._backward(hidden, batch, 1.0, -by_logps)
                else:
                    self._backward_selected(hidden, batch, candidates, by_logps, by_others)

        return ScoredPass(*self._selected(hidden, batch, candidates), backward)

    @torch.no_grad()
    def _selected(
        self, hidden: torch.Tensor, batch: PackedBatch, candidates: Candidates | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the log-probabilities of the tokens in the loss, and of their candidates."""
        ids, temperature = (candidates.ids, candidates.temperature) if candidates else (None, 1.0)
        logps, others = [hidden.new_zeros(0, dtype=torch.float32)], []
        for states, labels, ids_of_piece in self._pieces(hidden, batch, ids):
            own, theirs = _selected(self._divided(self._scores(states)), labels, ids_of_piece, temperature)
            logps.append(own)
            others += [] if theirs is None else [theirs]
        return torch.cat(logps), torch.cat(others) if candidates else None

    def _backward_selected(
        self,
        hidden: torch.Tensor,
        batch: PackedBatch,
        candidates: Candidates,
        by_logps: torch.Tensor,
        by_others: torch.Tensor | None,
    ) -> None:
        """Runs the gradient by the log-probabilities of tokens and their candidates back, piece by piece."""
        border = hidden.detach().requires_grad_(hidden.requires_grad)
        done = 0
        for states, labels, ids in self._pieces(border, batch, candidates.ids):
            piece = slice(done, done + len(states))
            logps, others = _selected(self._divided(self._scores(states)), labels, ids, candidates.temperature)
            _backward(logps, by_logps[piece], others, None if by_others is None else by_others[piece])
            done = piece.stop
        if border.grad is not None:
            hidden.backward(border.grad)  # type: ignore[no-untyped-call]

    def backward(self, batch: PackedBatch, scale: float) -> torch.Tensor:
        """Adds the gradient of the sum times `scale` to the parameters'; returns the sum times `scale`.

        Args:
            batch: The examples.
            scale: One over the sum of the step's weights makes it the step's mean.
        """
        if not self._in_pieces(batch):
            loss = summed_loss(self._network, batch, packed=self._packed, temperature=self._temperature) * scale
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        return self._backward(self._hidden(batch), batch, scale, batch.weights)

    def _backward(
        self, hidden: torch.Tensor, batch: PackedBatch, scale: float, weights: torch.Tensor | None
    ) -> torch.Tensor:
        border = hidden.detach().requires_grad_(hidden.requires_grad)
        total = hidden.new_zeros((), dtype=torch.float32)
        for states, labels, weights_of_piece in self._pieces(border, batch, weights):
            loss = summed_nll(self._divided(self._scores(states)), labels, scale, weights_of_piece)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if border.grad is not None:
            hidden.backward(border.grad)  # type: ignore[no-untyped-call]
        return total

    def _hidden(self, batch: PackedBatch) -> torch.Tensor:
        """Returns the last hidden states of the positions whose next token is in the loss, `[loss tokens, hidden]`."""
        states: torch.Tensor = self._network.base_model(**self._inputs(batch.sequences)).last_hidden_state
        return states[0, batch.logit_positions]

    def _pieces(
        self, hidden: torch.Tensor, batch: PackedBatch, by_token: torch.Tensor | None = None
    ) -> Iterator[_Piece]:
        """Yields some of the states, `[some, hidden]`, the tokens that follow them, `[some]`, and what these have.

        Args:
            hidden: `[loss tokens, hidden]`.
            batch: The examples.
            by_token: What each token in the loss has, such as its weight, `[loss tokens, ...]`.
        """
        at_once = max(1, self._logits_at_once(hidden.device) // self._network.config.get_text_config().vocab_size)
        states, labels = torch.split(hidden, at_once), torch.split(batch.labels, at_once)
        by_piece = [None] * len(states) if by_token is None else torch.split(by_token, at_once)
        return zip(states, labels, by_piece, strict=True)

    def _logits_at_once(self, device: torch.device) -> int:
        return _LOGITS_AT_ONCE.get(device.type, _LOGITS_ELSEWHERE)

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the output layer's scores; some bodies give float32 whatever they compute in (Mamba).

        Of an encoder that fills in masked tokens they are those of all that its class puts on the body: a layer, an
        activation and a norm before the output layer.
        """
        if self._masked:
            with body_gives(self._network.base_model, hidden.unsqueeze(0)):
                logits: torch.Tensor = self._network(
                    input_ids=hidden.new_zeros(1, len(hidden), dtype=torch.int64)
                ).logits
            return logits[0]
        head = self._network.get_output_embeddings()
        scores: torch.Tensor = head(hidden.to(head.weight.dtype))
        return scores

    def _divided(self, logits: torch.Tensor) -> torch.Tensor:
        return divided(logits, self._temperature)

    def _inputs(self, sequences: Sequence[torch.Tensor]) -> dict[str, Any]:
        return forward_inputs(sequences, packed=self._packed)

    def _in_pieces(self, batch: PackedBatch) -> bool:
        """Tells whether the model's logits are its output layer's scores, found out by a few tokens of a batch."""
        if self._plain_head is None:
            inputs = self._inputs([batch.sequences[0][:_LOOKED_AT]])
            training = self._network.training
            if training:
                self._network.eval()  # dropout would make the two differ
            try:
                with torch.no_grad():
                    whole = self._network(**inputs).logits
                    states = self._network.base_model(**inputs).last_hidden_state
                    scores = self._scores(states[0]).unsqueeze(0)
            finally:
                if training:
                    self._network.train()
            self._plain_head = torch.equal(whole.float(), scores.float())
        return bool(self._plain_head)


@dataclass(frozen=True, slots=True)
class _RandomState:
    """The state of torch's random numbers on the CPU and on a device, to draw the same numbers once more."""

    device: torch.device
    cpu: torch.Tensor
    own: torch.Tensor | None

    @classmethod
    def of(cls, device: torch.device) -> _RandomState:
        """Returns the state as it is now."""
        own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), own)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draws from this state as long as it lasts; afterwards, the state is what it was before."""
        with torch.random.fork_rng([self.device] if self.own is not None else []):
            torch.set_rng_state(self.cpu)
            if self.own is not None:
                torch.cuda.set_rng_state(self.own, self.device)
            yield


def _selected(
    logits: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor | None, temperature: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the log-probability of each label, `[tokens]`, and of each of some ids, `[tokens, k]`, float32.

    The temperature divides the logits of the second alone.
    """
    logs = log_softmax(logits, 1, dtype=torch.float32)
    logps = logs.gather(1, labels.unsqueeze(1)).squeeze(1)
    if ids is None:
        return logps, None
    if temperature != 1:
        logs = log_softmax(divided(logits, temperature), 1)
    return logps, logs.gather(1, ids)


def _backward(
    logps: torch.Tensor, by_logps: torch.Tensor, others: torch.Tensor | None, by_others: torch.Tensor | None
) -> None:
    """Runs the gradients by what `_selected` returned back."""
    if others is None or by_others is None:
        logps.backward(by_logps)  # type: ignore[no-untyped-call]
    else:
        torch.autograd.backward([logps, others], [by_logps, by_others])
