"""Runs that learn from pairs, and from answers that are wanted or not: what they learn, keep and refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import graftkit
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from graftkit.cli.init import command as init
from graftkit.cli.preview import command as preview
from graftkit.corpus.answers_compared import TwoAnswers
from graftkit.errors import Cancelled, DataError
from graftkit.flow.events import Event, Notice, StepFinished
from graftkit.flow.planning.evaluation import plan_evaluation, recipe_of_evaluation
from graftkit.flow.preparation.reference import REFERENCE_FILE
from graftkit.host.host import PluginHost
from graftkit.store.token_store import SEQUENCE, TokenStore
from made_records import written

PAIRS: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": f"say {n}"}],
        "chosen": [{"role": "assistant", "content": f"{n}!"}],
        "rejected": [{"role": "assistant", "content": f"no {n + 1}?"}],
    }
    for n in range(40)
]
LABELLED = [
    {"prompt": f"say {n}: ", "completion": f"{n}!" if n % 2 else "no?", "label": bool(n % 2)} for n in range(40)
]


@pytest.fixture
def prefer(make_recipe: Any, tmp_path: Path) -> Any:
    """Makes a recipe for an objective and the records that it learns from."""

    def make(objective: Any, records: Sequence[Mapping[str, Any]] = PAIRS, **sections: Any) -> dict[str, Any]:
        path = written(tmp_path / "preferences.jsonl", records)
        training = {"steps": 8, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu", "max_grad_norm": 10.0}
        data = {"train": str(path), "holdout": 0.2, "max_length": 64, **sections.pop("data", {})}
        training |= sections.pop("training", {})
        found: dict[str, Any] = make_recipe(data=data, objective=objective, training=training, **sections)
        return found

    return make


@pytest.mark.parametrize("objective", ["dpo", "orpo", "simpo", {"use": "dpo", "loss": "hinge", "beta": 0.5}])
def test_pairs_are_put_in_order(prefer: Any, tmp_path: Path, objective: Any) -> None:
    result = graftkit.run(prefer(objective, quantizer="nf4"), out=tmp_path / "run")
    before, after = result.before, result.after
    assert before is not None and after is not None and after.holdout_loss < before.holdout_loss
    assert after.metrics["accuracy"] == 1.0 and after.metrics["margin"] > before.metrics["margin"]
    assert after.bits_per_byte is None
    last = json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["metrics"]["accuracy"] == 1.0
    page = (result.folder / "report.html").read_text()
    assert "accuracy" in page and "bits per byte" not in page


def test_wanted_answers_become_likelier_and_the_export_is_proved(prefer: Any, tmp_path: Path) -> None:
    result = graftkit.run(prefer("kto", LABELLED, export=["peft"]), out=tmp_path / "run")
    assert result.before is not None and result.before.holdout_loss == pytest.approx(0.5, abs=1e-6)
    after = result.after
    assert after is not None and after.metrics["reward_wanted"] > 0 > after.metrics["reward_unwanted"]
    assert result.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    assert store.sequences_per_example == 2
    for example in store:
        own, other = example.sequences
        same = own.prompt_length
        assert own.ids[:same].tolist() == other.ids[:same].tolist(), "the other answer is to the same prompt"


def test_the_other_answers_are_those_of_the_records_before(prefer: Any, tmp_path: Path) -> None:
    records = [{"prompt": f"{n}:", "completion": f" <{n}>", "label": True} for n in range(5)]
    planned = graftkit.plan(prefer("kto", records, data={"holdout": 0.0}))
    from graftkit.corpus.tokenize import Position, tokenize

    decode = planned.tokenizer.decode
    for start in (0, 3):  # wherever encoding goes on
        chunks = list(tokenize(planned.encoder, planned.samples.train, Position(start)))
        others = [example.sequences[1] for chunk in chunks for example in chunk.tokens]
        texts = [decode(other.ids.tolist(), skip_specials=True) for other in others]
        assert [(f"{n}:" in text, f"<{(n - 1) % 5}>" in text) for n, text in enumerate(texts, start)] == [
            (True, True)
        ] * (5 - start)


def test_the_reference_is_the_model_as_training_starts(prefer: Any, tmp_path: Path) -> None:
    """Each token's log-probability is what transformers' own code gives it, alone."""
    from transformers import AutoModelForCausalLM

    recipe = prefer("dpo", training={"steps": 1})
    result = graftkit.run(recipe, out=tmp_path / "run")
    from safetensors.numpy import load_file

    kept = load_file(result.folder / REFERENCE_FILE)["train"]
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    network = AutoModelForCausalLM.from_pretrained(recipe["model"], dtype=torch.float32)
    at = 0
    for sequence in (sequence for example in store for sequence in example.sequences):
        ids = torch.from_numpy(sequence.ids)
        with torch.no_grad():
            logps = network(input_ids=ids[None]).logits[0].log_softmax(-1)
        expected = np.zeros(len(ids), np.float32)
        expected[1:] = logps[:-1].gather(1, ids[1:, None]).squeeze(1).numpy()
        expected[sequence.loss_weight == 0] = 0
        np.testing.assert_allclose(kept[at : at + len(ids)], expected, atol=2e-5)
        at += len(ids)
    assert at == len(kept) and np.count_nonzero(kept) == store.loss_tokens.sum()


@pytest.mark.parametrize("objective,records", [("dpo", PAIRS), ("kto", LABELLED)])
def test_how_a_step_is_cut_into_passes_changes_nothing(
    prefer: Any, tmp_path: Path, objective: str, records: Any
) -> None:
    found = []
    for tokens in (40, 1024):
        recipe = prefer(objective, records, training={"microbatch_tokens": tokens, "steps": 4})
        found.append(graftkit.run(recipe, out=tmp_path / str(tokens)))
    losses = [[json.loads(line) for line in (r.folder / "metrics.jsonl").read_text().splitlines()] for r in found]
    for few, many in zip(*losses, strict=True):
        assert few["loss"] == pytest.approx(many["loss"], rel=1e-3, abs=1e-5)
        assert few["gradient_norm"] == pytest.approx(many["gradient_norm"], rel=2e-3)
        assert few["tokens"] == many["tokens"] and few["loss_tokens"] == many["loss_tokens"]


def stopped_after(recipe: Any, out: Path, step: int) -> None:
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == step:
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=out, on_event=on_event, cancel=cancel)


def results_of(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    files = ["adapter/adapter.safetensors", REFERENCE_FILE, "tokens/train.safetensors"]
    return [kept, *((folder / name).read_bytes() for name in files)]


@pytest.mark.parametrize("damage", [False, True])
def test_a_stopped_run_goes_on_bit_for_bit(prefer: Any, tmp_path: Path, damage: bool) -> None:
    """Where its reference was damaged meanwhile, too."""
    recipe = prefer({"use": "dpo", "beta": 0.5}, adapter={"use": "lora", "rank": 4, "dropout": 0.2})
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    out = tmp_path / "stopped"
    stopped_after(recipe, out, 3)
    if damage:
        data = bytearray((out / REFERENCE_FILE).read_bytes())
        data[-5] ^= 1
        (out / REFERENCE_FILE).write_bytes(bytes(data))
    again = graftkit.run(recipe, out=out, resume=True)
    assert results_of(again.folder) == results_of(whole.folder)


@pytest.mark.parametrize("quantizer", ["none", {"use": "int8", "products": "int8"}], ids=["none", "rounded products"])
def test_an_adapter_that_is_trained_on_is_compared_with_itself(
    prefer: Any, make_recipe: Any, tmp_path: Path, quantizer: Any
) -> None:
    """The loss begins at log 2 whatever the adapter has learnt before, in training, too."""
    first = graftkit.run(make_recipe(export=["peft"]), out=tmp_path / "first")
    adapter = {"from": str(first.exports["peft"])}
    recipe = prefer("dpo", adapter=adapter, quantizer=quantizer, training={"steps": 2})
    result = graftkit.run(recipe, out=tmp_path / "second")
    assert result.before is not None and result.before.holdout_loss == pytest.approx(np.log(2), rel=1e-6)
    begun = json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert begun["loss"] == pytest.approx(np.log(2), rel=1e-6)


MISFITS = {
    "pairs for fine-tuning": ("sft", PAIRS[0], "a chosen and a rejected answer", "objective: dpo"),
    "labelled answers for fine-tuning": ("sft", LABELLED[0], "labelled as wanted or not", "objective: kto"),
    "texts for kto": ("kto", {"text": "t"}, "learns from labelled answers", "Leave out `objective`"),
    "labelled answers for dpo": ("dpo", LABELLED[0], "labelled as wanted or not", "objective: kto"),
    "answers for classification": ("classification", {"prompt": "p", "completion": "c"}, "has an answer", "columns:"),
    "tokens for regression": ("regression", {"input_ids": [1, 2], "labels": [1, 2]}, "has tokens", "columns:"),
    "texts for dpo": ("dpo", {"text": "t"}, "nothing that its answer is compared with", "Leave out `objective`"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_records_of_another_shape_are_refused_with_what_to_do(prefer: Any, name: str) -> None:
    objective, record, told, hint = MISFITS[name]
    with pytest.raises(DataError, match=told) as error:
        graftkit.plan(prefer(objective, [record] * 3))
    assert str(error.value.where).endswith("preferences.jsonl:1") and hint in str(error.value.hint)


def test_the_hints_for_fine_tuning_are_right(prefer: Any) -> None:
    recipe = prefer("sft")
    recipe["data"]["train"] = {"path": recipe["data"]["train"], "format": {"use": "preference", "learn": "chosen"}}
    assert graftkit.plan(recipe).samples.train.counts() == {"chat": 32}
    recipe = prefer("sft", LABELLED)
    recipe["data"]["train"] = {"path": recipe["data"]["train"], "format": "prompt-completion"}
    assert sum(graftkit.plan(recipe).samples.train.counts().values()) == 32


PROMPT_GIVEN_TWICE = {
    "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
}


def test_pairs_of_whole_conversations_share_their_prompt(prefer: Any) -> None:
    planned = graftkit.plan(prefer("dpo", [PROMPT_GIVEN_TWICE] * 3, data={"holdout": 0.0}))
    (sample, *_) = planned.samples.train
    assert isinstance(sample, graftkit.PreferencePair)
    assert sample.chosen.key() == [["user", "q", {"weight": 0.0}], ["assistant", "a"]]
    other = {
        **PROMPT_GIVEN_TWICE,
        "rejected": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "b"}],
    }
    with pytest.raises(DataError, match="is not what stands before the rejected one"):
        graftkit.plan(prefer("dpo", [other] * 3))


def test_a_pair_that_does_not_fit_as_a_whole_is_left_out_and_counted(prefer: Any, tmp_path: Path) -> None:
    long = {**PAIRS[0], "rejected": [{"role": "assistant", "content": "no " * 100}]}
    events: list[Event] = []
    recipe = prefer("dpo", [*PAIRS[:10], long], data={"holdout": 0.0}, training={"steps": 1})
    result = graftkit.run(recipe, out=tmp_path / "run", on_event=events.append)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert any("1 of 11 records are longer than 64 tokens and are left out" in notice for notice in notices)
    assert len(TokenStore.load(result.folder / "tokens" / "train.safetensors")) == 10


def test_a_column_says_which_token_is_of_which_answer(prefer: Any, tmp_path: Path) -> None:
    result = graftkit.run(prefer("orpo", training={"steps": 1}), out=tmp_path / "run")
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    decode = graftkit.plan(prefer("orpo")).tokenizer.decode
    for example in store:
        numbers = example.by_token[SEQUENCE]
        assert sorted({*numbers.tolist()}) == [0, 1] and (np.diff(numbers) >= 0).all()
        learnt = [decode(s.ids[s.loss_mask].tolist(), skip_specials=True).strip() for s in example.sequences]
        assert learnt[0].endswith("!") and learnt[1].startswith("no ")
    assert not (result.folder / REFERENCE_FILE).exists(), "orpo compares with no other model"


@pytest.mark.parametrize("objective,records", [("dpo", PAIRS), ("kto", LABELLED)])
def test_init_writes_the_objective_that_fits(tiny_model: Path, tmp_path: Path, objective: str, records: Any) -> None:
    path, recipe = written(tmp_path / "p.jsonl", records), tmp_path / "r.yaml"
    done = CliRunner().invoke(init, [str(recipe), "--model", str(tiny_model), "--train", str(path)])
    assert done.exit_code == 0, done.output
    assert f"\nobjective: {objective} " in recipe.read_text()
    planned = graftkit.plan(recipe)
    assert planned.bound.objective.use == objective
    assert planned.bound.recipe.max_length == 64, "of a sequence, not of both together"
    assert planned.corpus is None or planned.corpus.mean > 30, "both sequences of an example are counted"
    assert planned.bound.recipe.training.learning_rate == pytest.approx(1e-4), "a tenth of fine-tuning's"


@pytest.mark.parametrize("wanted", [True, False])
def test_answers_of_one_kind_alone_are_told(prefer: Any, wanted: bool) -> None:
    records = [{**record, "label": wanted} for record in LABELLED]
    told = f"the answer of every training record is {'wanted' if wanted else 'unwanted'}"
    assert any(told in line for line in graftkit.plan(prefer("kto", records)).notices)
    assert not any("the answer of every" in line for line in graftkit.plan(prefer("kto", LABELLED)).notices)


def test_a_label_that_is_missing_from_one_record_is_asked_for(prefer: Any) -> None:
    with pytest.raises(DataError, match='"label" is missing, or null') as refused:
        graftkit.plan(prefer("kto", [*LABELLED[:30], {**LABELLED[30], "label": None}, *LABELLED[31:]]))
    assert refused.value.where.endswith(":31") and "true or false" in refused.value.hint


def test_preview_shows_both_answers(prefer: Any, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(prefer("dpo")))
    shown = CliRunner().invoke(preview, [str(path), "--records", "1"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("28 tokens") + shown.output.count("say") >= 2
    assert "[no" in shown.output or "[n]" in shown.output, "the rejected answer is shown, its tokens learnt"


def test_a_labelled_record_is_judged_by_its_own_answer_alone(prefer: Any, tmp_path: Path) -> None:
    """However long the prompt and the answer are together that it is only compared with."""
    short = {"prompt": "p", "completion": "x" * 30, "label": True}
    long = {"prompt": "q" * 36, "completion": "y", "label": False}
    planned = graftkit.plan(prefer("kto", [short, long] * 3, data={"holdout": 0.0, "overflow": "error"}))
    from graftkit.corpus.tokenize import Position, tokenize

    (chunk,) = tokenize(planned.encoder, planned.samples.train, Position())
    assert len(chunk.tokens) == 6 and not chunk.tally.truncated and not chunk.tally.endless
    lengths = [[len(sequence.ids) for sequence in example.sequences] for example in chunk.tokens]
    assert all(own <= 64 and other <= 64 for own, other in lengths)
    assert any(other == 64 for _, other in lengths), "what it is compared with is cut, where it is too long"


@pytest.mark.filterwarnings("ignore")
def test_pairs_are_two_labelled_answers(prefer: Any, tmp_path: Path) -> None:
    """Those of TRL's `unpair_preference_dataset`; beside each is one of another pair, of its kind."""
    from datasets import Dataset
    from graftkit.corpus.tokenize import Position, tokenize
    from trl.data_utils import unpair_preference_dataset

    data = {"holdout": 0.0}
    planned = graftkit.plan(prefer("kto", PAIRS, data=data))
    assert (
        "40 records are pairs: each is learnt as two answers, the chosen one wanted, the other not" in planned.notices
    )
    assert len(planned.samples.train) == 40
    decode = planned.tokenizer.decode
    for start in (0, 3):  # wherever encoding goes on
        chunks = list(tokenize(planned.encoder, planned.samples.train, Position(start)))
        pairs = [example for chunk in chunks for example in chunk.tokens]
        assert [example.by_example["wanted"] for example in pairs] == [1, 0] * (40 - start)
        assert [number for chunk in chunks for number in chunk.records] == [n for n in range(start, 40) for _ in (0, 1)]
        for number, example in enumerate(pairs):
            text = decode(example.sequences[1].ids.tolist(), skip_specials=True)
            record, before = number // 2 + start, (number // 2 + start - 1) % 40
            assert f"say {record}" in text and (f"{before}!" if number % 2 == 0 else f"no {before + 1}?") in text

    ours = [
        example for chunk in tokenize(planned.encoder, planned.samples.train, Position()) for example in chunk.tokens
    ]
    unpaired = [dict(row) for row in unpair_preference_dataset(Dataset.from_list(PAIRS))]
    theirs = graftkit.plan(prefer("kto", unpaired, data=data))
    labelled = [e for chunk in tokenize(theirs.encoder, theirs.samples.train, Position()) for e in chunk.tokens]

    def learnt(examples: Sequence[Any]) -> list[Any]:
        own = ((example.sequences[0], int(example.by_example["wanted"])) for example in examples)
        return sorted((sequence.ids.tolist(), sequence.loss_weight.tolist(), wanted) for sequence, wanted in own)

    assert learnt(ours) == learnt(labelled)


def test_pairs_that_an_evaluation_is_given_are_two_answers_too(prefer: Any, tmp_path: Path) -> None:
    """Whatever column the run's own records were held out by."""
    recipe = prefer("kto", [{**pair, "by": str(number)} for number, pair in enumerate(PAIRS)])
    recipe["data"]["holdout_by"] = "by"
    given = written(tmp_path / "given.jsonl", PAIRS[:5])
    planned = plan_evaluation(recipe_of_evaluation("a model", None, str(given), recipe, []), PluginHost())
    assert [type(sample) for sample in planned.samples] == [TwoAnswers] * 5


def test_pairs_and_labelled_answers_are_learnt_together(prefer: Any, tmp_path: Path) -> None:
    """A half that is too long is left out alone; both halves of a pair stand on one side of the split."""
    long = {**PAIRS[0], "rejected": [{"role": "assistant", "content": "no " * 60}]}
    recipe = prefer("kto", [long, *PAIRS[1:]], data={"overflow": "drop"}, export=["peft"])
    more = {"path": str(written(tmp_path / "labelled.jsonl", LABELLED)), "weight": 0.5}
    recipe["data"]["train"] = [recipe["data"]["train"], more]
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    stores = [TokenStore.load(result.folder / "tokens" / f"{side}.safetensors") for side in ("train", "holdout")]
    assert sum(len(store) for store in stores) == 40 * 2 - 1 + 40
    after = result.after
    assert after is not None and after.metrics["reward_wanted"] > after.metrics["reward_unwanted"]


def test_an_answer_that_is_a_json_list_is_text(prefer: Any) -> None:
    pair = {"prompt": "cities?", "chosen": '[{"name": "Paris"}]', "rejected": "[{ no"}
    (sample, *_) = graftkit.plan(prefer("dpo", [pair] * 3)).samples.train
    assert isinstance(sample, graftkit.PreferencePair)
    assert isinstance(sample.chosen, graftkit.Conversation) and isinstance(sample.rejected, graftkit.Conversation)
    assert sample.chosen.messages[-1].content == pair["chosen"]
    assert sample.rejected.messages[-1].content == pair["rejected"]


@pytest.mark.parametrize("objective,records", [("dpo", PAIRS), ("kto", LABELLED)])
def test_no_other_base_is_chosen_by_likelihood(prefer: Any, tmp_path: Path, objective: str, records: Any) -> None:
    """What is learnt of preferences is made of unlikely answers: whatever takes it back has a lower loss."""
    export = {"use": "merged", "onto": "auto"}
    result = graftkit.run(prefer(objective, records, quantizer="nf4", export=[export]), out=tmp_path / "run")
    merge = result.manifest["exports"]["merged"]["merge"]
    assert merge["onto"] == "dequantized" and "a likelihood does not tell" in merge["reason"]
    assert "answers to prefer" in merge["measured_on"]
    assert {score["onto"] for score in merge["scores"]} >= {"trained", "dequantized", "requantized"}


def test_a_pair_of_equal_answers_is_refused_or_counted(prefer: Any) -> None:
    recipe = prefer("dpo", [*PAIRS[:4], {**PAIRS[4], "rejected": PAIRS[4]["chosen"]}], data={"holdout": 0.0})
    with pytest.raises(DataError, match="the chosen answer is the rejected one"):
        graftkit.plan(recipe)
    recipe["data"]["train"] = {"path": recipe["data"]["train"], "empty": "skip"}
    planned = graftkit.plan(recipe)
    assert len(planned.samples.train) == 4
    assert any("1 records have nothing to learn and are left out" in notice for notice in planned.notices)
