"""A run tells of control tokens that texts spell, and makes tokens of them where the recipe says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import Cancelled, RecipeError
from graftkit.flow.events import StepFinished
from graftkit.store.token_store import TokenStore
from graftkit_tokenizers.huggingface import HuggingFaceBackend

END = "<|im_end|>"


def test_spelt_tokens_are_told_or_parsed_and_a_resumed_run_keeps_to_it(make_recipe: Any, tmp_path: Path) -> None:
    pairs = [{"prompt": f"<|im_start|>say {n}{END}", "completion": f"{n}!{END}"} for n in range(6)]
    plain = [{"prompt": f"say {n}", "completion": f"{n}!"} for n in range(6, 10)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*pairs, *plain]))
    recipe = make_recipe(data={"train": str(tmp_path / "a.jsonl"), "holdout": 0.0, "max_length": 128})
    recipe["training"]["steps"] = 2
    notices = graftkit.run(recipe, out=tmp_path / "plain").manifest["notices"]
    told = "6 of 10 records spell control tokens such as '<|im_start|>'; they are plain characters"
    assert f"{told}: data.special_tokens: parse makes them tokens" in notices

    recipe["data"]["special_tokens"] = "parse"
    cancel, out = graftkit.CancelToken(), tmp_path / "parsed"

    def on_event(event: Any) -> None:
        if isinstance(event, StepFinished):
            cancel.cancel()

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=out, on_event=on_event, cancel=cancel)
    with pytest.raises(RecipeError, match="started with another recipe"):
        graftkit.run({**recipe, "data": {**recipe["data"], "special_tokens": "plain"}}, out=out, resume=True)
    result = graftkit.run(recipe, out=out, resume=True)
    assert not any("control tokens" in notice for notice in result.manifest["notices"])
    assert result.manifest["recipe"]["data"]["special_tokens"] == "parse"
    tokenizer = HuggingFaceBackend().load(out / "tokenizer")
    ids = TokenStore.load(out / "tokens" / "train.safetensors").ids.tolist()
    assert ids.count(tokenizer.special_tokens["<|im_start|>"]) == 6
    assert ids.count(tokenizer.special_tokens[END]) == 6 * 2 + 4, "and no second end after a completion's own"


def test_a_difference_between_training_and_use_is_told_by_the_plan(
    make_recipe: Any, chat_records: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n!{% endif %}"
    )
    template = str(tmp_path / "own.jinja")
    recipe = make_recipe(data={"train": str(chat_records), "max_length": 64, "chat_template": template})
    told = [notice for notice in graftkit.plan(recipe).notices if "in training than in use" in notice]
    assert len(told) == 1
