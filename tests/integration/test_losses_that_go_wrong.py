"""A loss that is no number, or that diverges, stops the run before its step: told with the records, and mendable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.errors import LossError, RecipeError
from graftkit.flow.events import Event, StepFinished
from graftkit.store.token_store import TokenStore
from graftkit.training.checkpoint import latest_checkpoint
from graftkit.training.loop import Trainer
from graftkit.training.loss import ScoredPass, TokenLoss
from graftkit.training.order import plan_steps

ADAPTER = "adapter/adapter.safetensors"


@pytest.fixture
def recipe(make_recipe: Any) -> dict[str, Any]:
    training = {"steps": 6, "tokens_per_step": 128, "learning_rate": 1e-2, "device": "cpu", "checkpoint_every": 1}
    found: dict[str, Any] = make_recipe(training=training)
    return found


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Makes the loss of sequences no number, once their ids are put into the list."""
    bad: list[list[int]] = []
    backward, score = TokenLoss.backward, TokenLoss.score

    def spoilt(batch: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss * float("nan") if any(ids.tolist() in bad for ids in batch.sequences) else loss

    monkeypatch.setattr(TokenLoss, "backward", lambda self, batch, scale: spoilt(batch, backward(self, batch, scale)))

    def spoilt_score(self: TokenLoss, batch: Any, **keywords: Any) -> ScoredPass:
        scored = score(self, batch, **keywords)
        return replace(scored, logps=spoilt(batch, scored.logps))

    monkeypatch.setattr(TokenLoss, "score", spoilt_score)
    return bad


def test_a_loss_that_is_no_number_names_its_step_and_record_and_keeps_the_state(
    recipe: dict[str, Any], broken: list[list[int]], tmp_path: Path
) -> None:
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    store = TokenStore.load(whole.folder / "tokens/train.safetensors")
    plan = plan_steps(store.lengths.tolist(), seed=0, tokens_per_step=128, epochs=None, steps=6)
    fresh = next(example for example in plan[3] if example not in {e for step in plan[:3] for e in step})
    broken.append(store[fresh].ids.tolist())
    out = tmp_path / "run"
    with pytest.raises(LossError, match=f"step 4: the loss is nan.*that of 1 of its {len(plan[3])} examples") as caught:
        graftkit.run(recipe, out=out)
    failure = json.loads((out / "manifest.json").read_text())["failure"]
    [where] = failure["records"]
    assert where in caught.value.message and "resume=True" in caught.value.hint
    found = latest_checkpoint(out / "checkpoints")
    assert found is not None and found[0] == 3 and failure["step"] == 4
    for _ in range(2):  # the same step fails the same way
        with pytest.raises(LossError, match="step 4: the loss is nan"):
            graftkit.run(recipe, out=out, resume=True)
    broken.clear()
    again = graftkit.run(recipe, out=out, resume=True)
    assert again.manifest["artifacts"][ADAPTER] == whole.manifest["artifacts"][ADAPTER]
    assert again.manifest.get("failure") is None


def test_the_named_record_is_the_one_whose_tokens_were_spoilt(
    recipe: dict[str, Any], broken: list[list[int]], tmp_path: Path
) -> None:
    recipe["data"]["holdout"] = 0
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    store = TokenStore.load(whole.folder / "tokens/train.safetensors")
    assert store.by_example["record"].tolist() == list(range(len(store)))  # a conversation makes one example
    for example in (5, 17):
        broken[:] = [store[example].ids.tolist()]
        training = {**recipe["training"], "steps": None, "epochs": 1}
        with pytest.raises(LossError) as caught:
            graftkit.run({**recipe, "training": training}, out=tmp_path / f"run{example}")
        assert caught.value.message.endswith(f"{recipe['data']['train']}:{example + 1}")


@pytest.fixture
def rising(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Makes the loss five times as high once what is trained has moved too far: after three steps at 1e-2."""
    backward = TokenLoss.backward

    def risen(self: TokenLoss, batch: Any, scale: float) -> torch.Tensor:
        far = max(p.abs().max().item() for name, p in self._network.named_parameters() if name.endswith("lora_B"))
        return backward(self, batch, scale) * (5 if far > 0.025 else 1)

    monkeypatch.setattr(TokenLoss, "backward", risen)
    recipe["training"] |= {"divergence_window": 1, "divergence_factor": 2.0, "warmup": 0.0}
    return recipe


def test_with_a_lower_rate_it_goes_back_and_on(rising: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(LossError, match="step 4: the loss has diverged: .* in this step") as caught:
        graftkit.run(rising, out=out)
    failure = json.loads((out / "manifest.json").read_text())["failure"]
    assert failure["good"] == 2 and failure["records"] and failure["records"][0] in caught.value.message
    with pytest.raises(RecipeError, match="training.seed was 0 and is 1"):
        graftkit.run(rising, out=out, resume=True, overrides=["training.seed=1"])
    with pytest.raises(LossError, match="step 4: the loss has diverged"):  # the losses before are known to it
        graftkit.run(rising, out=out, resume=True)
    steps: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished):
            steps.append(event.step.step)

    lower = {"resume": True, "overrides": ["training.learning_rate=1e-3"]}
    mended = graftkit.run(rising, out=out, on_event=on_event, **lower)  # type: ignore[arg-type]
    assert steps == [3, 4, 5, 6]  # two checkpoints had been kept, of steps 2 and 3
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all((line["learning_rate"] <= 1e-3) == (line["step"] >= steps[0]) for line in lines)
    assert any("trained anew" in notice for notice in mended.manifest["notices"])


def test_the_rule_can_be_switched_off(rising: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(LossError, match="diverged"):
        graftkit.run(rising, out=out)
    result = graftkit.run(rising, out=out, resume=True, overrides=["training.divergence_factor=null"])
    assert result.manifest["status"] == "finished"


def test_a_holdout_loss_that_is_no_number_stops_the_run_as_well(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, bad = Trainer.holdout_loss, [4]

    def spoilt(self: Trainer, store: Any, poll: Any) -> float:
        return float("nan") if self.step in bad else loss(self, store, poll)

    monkeypatch.setattr(Trainer, "holdout_loss", spoilt)
    recipe["evaluation"] = {"every": 2}
    for resume in (False, True):
        with pytest.raises(LossError, match="after step 4 the holdout loss is nan") as caught:
            graftkit.run(recipe, out=tmp_path / "run", resume=resume)
        assert "The state after step 4 is kept" in caught.value.hint
    bad.clear()
    assert graftkit.run(recipe, out=tmp_path / "run", resume=True).manifest["status"] == "finished"
