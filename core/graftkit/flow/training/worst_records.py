"""Which holdout records the trained model predicts worst: `holdout-worst.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import nlargest

from graftkit.flow.preparation.corpus import RECORD
from graftkit.flow.state.context import RunContext
from graftkit.store.files import write_json
from graftkit.store.token_store import Example, TokenStore

__all__ = ["WORST", "WORST_FILE", "keep_worst"]

WORST_FILE = "holdout-worst.json"

WORST = 10
"""How many records are kept."""

MOST_TOKENS = 200
"""How many tokens of a sequence are shown: the last ones, since what is learnt mostly stands at the end."""


def keep_worst(run: RunContext, holdout: TokenStore, losses: Sequence[float]) -> None:
    """Writes the holdout examples with the highest loss: where the record stands, its loss and its text.

    Args:
        run: The run.
        holdout: The holdout examples.
        losses: The loss of each.
    """
    known = [number for number, loss in enumerate(losses) if math.isfinite(loss)]
    worst = nlargest(WORST, known, key=losses.__getitem__)
    records = [int(holdout.by_example[RECORD][number]) for number in worst]
    wanted = sorted(set(records))
    places = {number: sample.where for number, sample in zip(wanted, run.plan.samples.holdout.at(wanted), strict=True)}
    data = [
        {
            "where": places[record],
            "loss": losses[number],
            "loss_tokens": int(holdout.loss_tokens[number]),
            "texts": _texts(run, TokenStore.__getitem__(holdout, number)),
        }
        for number, record in zip(worst, records, strict=True)
    ]
    fingerprint = run.vocabulary.tokenizer.fingerprint
    facts = {"tokenizer_fingerprint": fingerprint, "examples": len(losses), "worst": data}
    write_json(run.folder / WORST_FILE, facts)


def _texts(run: RunContext, example: Example) -> list[str]:
    """Returns the end of each of its sequences as text."""
    decode = run.vocabulary.tokenizer.decode
    return [
        ("... " if len(sequence.ids) > MOST_TOKENS else "") + decode(sequence.ids[-MOST_TOKENS:].tolist())
        for sequence in example.sequences
    ]
