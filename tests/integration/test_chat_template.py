"""The chat template that a run lays its records out with is the one that everything it writes lays out with."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit.cli.generate import command
from graftkit.cli.preview import command as preview
from graftkit.errors import Cancelled, DataError, RequestError
from graftkit.flow.answering.reload import reload
from graftkit.flow.events import Event, StepFinished
from graftkit.flow.preparation.tokenizer import make_vocabulary
from graftkit.store.token_store import TokenStore
from graftkit.testing import tiny_model_folder
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>[{{ m['role'] }}] {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>[assistant] {% endif %}\n"
)
CONVERSATION = [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": "1!"}]
PROMPT = "<|im_start|>[user] say 1<|im_end|><|im_start|>[assistant] "
RENDERED = "<|im_start|>[user] say 1<|im_end|><|im_start|>[assistant] 1!<|im_end|>"
VOCABULARIES = {
    "the base's": None,
    "extended": {"extend": {"tokens": 5}},
    "trained": {"train": {"use": "byte-level", "vocab_size": 300}},
    "replaced": {"replace": "ANOTHER"},
}


def data(records: Path, folder: Path, text: str = TEMPLATE) -> dict[str, Any]:
    """The section of records, with a template of the recipe's own."""
    (folder / "own.jinja").write_text(text)
    return {"train": str(records), "holdout": 0.1, "max_length": 64, "chat_template": str(folder / "own.jinja")}


def tokenizer_folders(result: graftkit.RunResult) -> dict[str, Path]:
    """Every folder of what a run writes that holds a tokenizer."""
    inside = {"extended-base": "base"}
    exports = {name: folder / inside.get(name, "") for name, folder in result.exports.items()}
    return {"tokenizer": result.folder / "tokenizer", **exports}


@pytest.mark.parametrize(
    ("vocabulary", "form"),
    [
        ("the base's", "tokenizer_config.json"),
        ("the base's", "chat_template.jinja"),
        ("extended", "chat_template.jinja"),
        ("trained", "chat_template.jinja"),
        ("replaced", "tokenizer_config.json"),
    ],
)
def test_all_that_a_run_writes_carries_the_recipes_template(
    make_recipe: Any, chat_records: Path, tmp_path: Path, vocabulary: str, form: str
) -> None:
    model = with_template_in(form, tmp_path / "model")
    section = VOCABULARIES[vocabulary]
    if section == {"replace": "ANOTHER"}:
        section = {"replace": str(another(form, tmp_path / "another"))}
    export = ["merged", *{"the base's": ["peft"], "extended": ["extended-base"]}.get(vocabulary, [])]
    changes = {} if section is None else {"tokenizer": section}
    recipe = make_recipe(model=str(model), data=data(chat_records, tmp_path), export=export, **changes)

    result = graftkit.run(recipe, out=tmp_path / "run")

    sha = hashlib.sha256((tmp_path / "own.jinja").read_bytes()).hexdigest()
    assert result.manifest["tokenizer"]["chat_template"] == sha
    for name, folder in tokenizer_folders(result).items():
        theirs = AutoTokenizer.from_pretrained(folder)
        assert theirs.apply_chat_template(CONVERSATION, tokenize=False) == RENDERED, name
        config = json.loads((folder / "tokenizer_config.json").read_text())
        forms = [config.get("chat_template"), (folder / "chat_template.jinja").exists() or None]
        assert forms.count(None) == 1, f"{name}: one of the two forms, and no stale one beside it"
    for name, folder in result.exports.items():
        assert json.loads((folder / "graftkit.json").read_text())["chat_template"] == sha, name
    for folder in (result.folder, *result.exports.values()):
        assert prompt_of_generate(folder) == PROMPT


IN_PARTS = (
    "{% for m in messages %}<|im_start|>[{{ m['role'] }}] {% for part in m['content'] if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>[assistant] {% endif %}"
)
"""As templates of models with images have it: a content is a list of parts, and of a text nothing is written."""


def test_a_template_that_writes_parts_only_is_given_them_everywhere(
    make_recipe: Any, chat_records: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(data=data(chat_records, tmp_path, IN_PARTS), export=["merged", {"use": "gguf", "type": "f32"}])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert prompt_of_generate(result.folder) == PROMPT
    for facts in result.manifest["exports"].values():
        assert facts["proof"]["status"] == "proved" and "template" in facts["proof"]["covers"]
    told = 'must give a content as [{"type": "text", "text": ...}]'  # a program that gives a text loses it in silence
    assert [notice for notice in result.manifest["notices"] if told in notice]
    assert "a content as" in (result.exports["merged"] / "README.md").read_text()


def prompt_of_generate(folder: Path, system: str | None = None) -> str:
    """What `toolkit generate` lets the model go on with."""
    model = reload(str(folder))
    return model.tokenizer.decode(model.prompt("say 1", system))


def with_template_in(form: str, folder: Path) -> Path:
    """A model whose own template lies in one of the two files that may hold it."""
    tiny_model_folder(folder)
    if form == "chat_template.jinja":
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "chat_template.jinja").write_text(config.pop("chat_template"))
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def another(form: str, folder: Path) -> Path:
    """A tokenizer alone that has one special token which the model's lacks."""
    model = with_template_in(form, folder)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<|endoftext|>", "<|nothing|>"))
    for path in (*folder.glob("*.safetensors"), folder / "config.json"):
        path.unlink()
    return model


def test_it_is_what_the_holdout_records_are_answered_with(make_recipe: Any, chat_records: Path, tmp_path: Path) -> None:
    evaluation = {"answers": 2, "max_new_tokens": 4}
    recipe = make_recipe(data=data(chat_records, tmp_path), evaluation=evaluation, tokenizer={"extend": {"tokens": 5}})
    result = graftkit.run(recipe, out=tmp_path / "run")
    answers = json.loads((result.folder / "answers-after.json").read_text())["answers"]
    assert all(answer["prompt"].startswith("<|im_start|>[user] say ") for answer in answers)
    assert result.metrics["base"]["holdout_loss"] > 0


def stop_after_a_step(recipe: dict[str, Any], out: Path, **options: Any) -> None:
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished):
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=out, on_event=on_event, cancel=cancel, **options)


def test_a_resumed_run_carries_it_and_refuses_another_one(make_recipe: Any, chat_records: Path, tmp_path: Path) -> None:
    recipe, out = make_recipe(data=data(chat_records, tmp_path), export=["merged"]), tmp_path / "run"
    stop_after_a_step(recipe, out)
    data(chat_records, tmp_path, TEMPLATE.replace("|>[", "|>("))
    with pytest.raises(DataError, match=r"started with the chat template \w{12}, which would now be \w{12}") as caught:
        graftkit.run(recipe, out=out, resume=True)
    assert "data.chat_template" in str(caught.value.hint)
    saved = HuggingFaceBackend().load(out / "tokenizer")
    assert saved.chat_template == TEMPLATE, "the refusal left the run's tokenizer as it was"
    data(chat_records, tmp_path)
    result = graftkit.run(recipe, out=out, resume=True)
    assert prompt_of_generate(result.exports["merged"]) == PROMPT


def test_without_one_in_the_recipe_the_models_own_is_kept_byte_by_byte(make_recipe: Any, tmp_path: Path) -> None:
    result = graftkit.run(make_recipe(export=["merged"]), out=tmp_path / "run")
    model = Path(result.manifest["model"]["reference"])
    for folder in tokenizer_folders(result).values():
        assert (folder / "tokenizer_config.json").read_bytes() == (model / "tokenizer_config.json").read_bytes()


def test_an_empty_template_is_refused(make_recipe: Any, chat_records: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"own.jinja is empty"):
        graftkit.run(make_recipe(data=data(chat_records, tmp_path, " \n")), out=tmp_path / "run")


DATED = TEMPLATE.replace("[{{ m['role'] }}]", "[{{ strftime_now('%Y-%m-%d') }}]")


class Calendar(date):
    """A calendar that can be turned."""

    day = date(2026, 1, 31)

    @classmethod
    def today(cls) -> Any:
        return cls.day


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> type[Calendar]:
    monkeypatch.setattr("graftkit.flow.planning.learnt.date", Calendar)
    monkeypatch.setattr(Calendar, "day", date(2026, 1, 31))
    return Calendar


def first_row(folder: Path) -> str:
    """What the first training record says, as it was encoded."""
    store = TokenStore.load(folder / "tokens" / "train.safetensors")
    return HuggingFaceBackend().load(folder / "tokenizer").decode(store[0].ids.tolist())


@pytest.mark.parametrize("vocabulary", ["extended", "trained", "replaced"])
def test_another_vocabulary_keeps_the_named_templates(make_recipe: Any, tmp_path: Path, vocabulary: str) -> None:
    templates = {"default": TEMPLATE, "tool_use": f"{TEMPLATE} tools"}
    folders = [tiny_model_folder(tmp_path / "model"), another("tokenizer_config.json", tmp_path / "another")]
    for folder in folders:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    section = {"replace": str(folders[1])} if vocabulary == "replaced" else VOCABULARIES[vocabulary]
    made, _ = make_vocabulary(graftkit.plan(make_recipe(model=str(folders[0]), tokenizer=section)))
    (tmp_path / "saved").mkdir()
    made.tokenizer.save(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == templates


def test_a_resumed_run_writes_the_day_of_its_start(
    make_recipe: Any, chat_records: Path, tmp_path: Path, calendar: type[Calendar]
) -> None:
    recipe, out = make_recipe(data=data(chat_records, tmp_path, DATED)), tmp_path / "run"
    stop_after_a_step(recipe, out)
    assert "[2026-01-31]" in first_row(out)
    calendar.day = date(2026, 2, 1)
    result = graftkit.run(recipe, out=out, resume=True)
    assert result.manifest["data"]["date"] == "2026-01-31"
    assert "[2026-01-31]" in first_row(out)


def test_so_does_one_that_was_stopped_before_a_record_was_encoded(
    make_recipe: Any, chat_records: Path, tmp_path: Path, calendar: type[Calendar]
) -> None:
    recipe, out = make_recipe(data=data(chat_records, tmp_path, DATED)), tmp_path / "run"
    cancel = graftkit.CancelToken()
    cancel.cancel("at once")
    for day in (date(2026, 1, 31), date(2026, 2, 1)):
        calendar.day = day
        with pytest.raises(Cancelled):
            graftkit.run(recipe, out=out, resume=True, cancel=cancel)
    stop_after_a_step(recipe, out, resume=True)
    assert "[2026-01-31]" in first_row(out)


def test_a_recipe_may_say_the_day(
    make_recipe: Any, chat_records: Path, tmp_path: Path, calendar: type[Calendar]
) -> None:
    section = {**data(chat_records, tmp_path, DATED), "date": "2024-02-29"}
    request = graftkit.plan(make_recipe(data=section, tokenizer={"extend": {"tokens": 5}}))
    for encoder in (request.encoder, make_vocabulary(request)[0].encoder):
        (example,) = encoder.encode(next(iter(request.samples.train))).examples
        assert "[2024-02-29]" in encoder.tokenizer.decode(example.ids.tolist())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX has named pipes")
def test_a_pipe_or_a_device_in_the_place_of_a_template_is_told_and_not_read(make_recipe: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        recipe = make_recipe()
        recipe["data"]["chat_template"] = str(path)
        with pytest.raises(DataError, match="can't be read: this is no regular file"):
            graftkit.plan(recipe)


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if not (enable_thinking | default(true)) %}"
    "<think></think>{% endif %}{% endif %}"
).replace(
    "{{ m['content'] }}",
    "{% if m['role'] == 'assistant' and enable_thinking is false %}<think></think>{% endif %}{{ m['content'] }}",
)


def test_arguments_of_the_template_hold_wherever_it_lays_out(
    make_recipe: Any, chat_records: Path, tmp_path: Path
) -> None:
    section = {**data(chat_records, tmp_path, THINKING), "template_arguments": {"enable_thinking": False}}
    evaluation = {"answers": 1, "max_new_tokens": 2}
    recipe = make_recipe(data=section, export=["merged", "peft"], evaluation=evaluation)
    notices: list[str] = []
    result = graftkit.run(
        recipe, out=tmp_path / "run", on_event=lambda event: notices.append(getattr(event, "text", ""))
    )
    [theirs] = (AutoTokenizer.from_pretrained(result.folder / "tokenizer"),)
    asked = theirs.apply_chat_template(
        CONVERSATION[:1], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert asked.endswith("assistant\n<think></think>")
    for folder in (result.folder, *result.exports.values()):
        assert prompt_of_generate(folder) == asked
    assert "assistant\n<think></think>" in first_row(result.folder)
    answers = json.loads((result.folder / "answers-after.json").read_text())["answers"]
    assert all(answer["prompt"].endswith("<think></think>") for answer in answers)
    said = result.manifest["data"]["chat"]
    assert said["template_arguments"] == {"enable_thinking": False} and len(said["template_arguments_sha256"]) == 64
    for folder in result.exports.values():
        assert json.loads((folder / "graftkit.json").read_text())["chat"] == said
    assert all("template" in export["proof"]["covers"] for export in result.manifest["exports"].values())
    told = [text for text in result.manifest["notices"] if "template_arguments" in text]
    assert len(told) == 1 and "must pass enable_thinking=False" in told[0]


def test_they_are_part_of_what_tokens_depend_on(make_recipe: Any, chat_records: Path, tmp_path: Path) -> None:
    section = data(chat_records, tmp_path, THINKING)
    layouts = {
        graftkit.plan(make_recipe(data={**section, "template_arguments": arguments})).encoder.fingerprint
        for arguments in ({}, {"enable_thinking": False}, {"enable_thinking": True})
    }
    assert len(layouts) == 3


def test_an_argument_that_the_template_does_not_read_is_refused(
    make_recipe: Any, chat_records: Path, tmp_path: Path
) -> None:
    section = {**data(chat_records, tmp_path, THINKING), "template_arguments": {"enable_thinkin": False}}
    with pytest.raises(RequestError, match="the chat template reads no 'enable_thinkin'") as caught:
        graftkit.plan(make_recipe(data=section))
    assert caught.value.hint == "Did you mean 'enable_thinking'? Known: enable_thinking."


def test_a_run_does_not_go_on_with_other_arguments(make_recipe: Any, chat_records: Path, tmp_path: Path) -> None:
    section, out = data(chat_records, tmp_path, THINKING), tmp_path / "run"
    stop_after_a_step(make_recipe(data={**section, "template_arguments": {"enable_thinking": False}}), out)
    with pytest.raises(RequestError, match="template_arguments"):
        graftkit.run(make_recipe(data=section), out=out, resume=True)


NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_system_message_stands_before_the_first_user_message_in_use_too(make_recipe: Any, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    turns = [[("system", "be kind"), ("user", f"say {n}"), ("assistant", f"{n}!")] for n in range(12)]
    rows = [{"messages": [{"role": role, "content": content} for role, content in record]} for record in turns]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = data(records, tmp_path, NO_SYSTEM)
    with pytest.raises(RequestError) as caught:
        graftkit.plan(make_recipe(data=section))
    assert "data.system: first_user" in str(caught.value.hint)
    result = graftkit.run(
        make_recipe(data={**section, "system": "first_user"}, export=["merged"]), out=tmp_path / "run"
    )
    for folder in (result.folder, *result.exports.values()):
        assert prompt_of_generate(folder, "be kind") == (
            "<|im_start|>user\nbe kind\n\nsay 1<|im_end|>\n<|im_start|>assistant\n"
        )
    assert any("system message's text before the first user message" in text for text in result.manifest["notices"])


def written(rows: list[dict[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


COMPLETIONS = [{"prompt": f"say {n}", "completion": f" {n}!"} for n in range(12)]


def test_what_was_trained_on_plain_prompts_is_asked_plainly(make_recipe: Any, tmp_path: Path) -> None:
    section = {"train": written(COMPLETIONS, tmp_path / "records.jsonl"), "holdout": 0.2, "max_length": 64}
    evaluation = {"answers": 1, "max_new_tokens": 2}
    result = graftkit.run(make_recipe(data=section, export=["merged"], evaluation=evaluation), out=tmp_path / "run")
    for folder in (result.folder, *result.exports.values()):
        model = reload(str(folder))
        decode = model.tokenizer.decode
        assert decode(model.prompt("say 1")) == "say 1"
        assert (
            decode(model.prompt("say 1", plain=False)) == "<|im_start|>user\nsay 1<|im_end|>\n<|im_start|>assistant\n"
        )
        with pytest.raises(RequestError, match="a system message is laid out by the chat template"):
            model.prompt("say 1", "be kind")
        for options, told in (([], True), (["--chat"], False), (["--plain"], False)):
            done = CliRunner().invoke(command, [str(folder), "say 1", "--max-new-tokens", "1", *options])
            assert done.exit_code == 0 and ("Trained on plain prompts" in done.stderr) is told
    [answer] = json.loads((result.folder / "answers-after.json").read_text())["answers"]
    assert answer["prompt"].startswith("say ") and answer["expected"].startswith(" ")


def test_without_a_chat_template_there_is_none_to_ask_in(tiny_model: Path) -> None:
    model = reload(str(tiny_model))
    without = replace(model, tokenizer=model.tokenizer.with_chat_template(" "))
    assert model.tokenizer.decode(without.prompt("say 1")) == "say 1"
    with pytest.raises(RequestError, match="has no chat template"):
        without.prompt("say 1", plain=False)


SPACE_BEFORE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)
OPENS_A_THOUGHT = SPACE_BEFORE.replace("<|im_start|>assistant:", "<|im_start|>assistant:<think>")


@pytest.mark.parametrize("turns", ["all", "each"])
@pytest.mark.parametrize("template", [SPACE_BEFORE, OPENS_A_THOUGHT])
def test_exact_match_is_measured_after_the_prompt_of_use(
    make_recipe: Any, chat_records: Path, tmp_path: Path, template: str, turns: str
) -> None:
    section = {**data(chat_records, tmp_path, template), "turns": turns}
    evaluation = {"answers": 3, "max_new_tokens": 2}
    result = graftkit.run(make_recipe(data=section, evaluation=evaluation), out=tmp_path / "run")
    model = reload(str(result.folder))
    answers = json.loads((result.folder / "answers-after.json").read_text())["answers"]
    assert len(answers) == 3
    for answer in answers:
        asked = answer["prompt"].removeprefix("<|im_start|>user: ").partition("<|im_end|>")[0]
        assert answer["prompt"] == model.tokenizer.decode(model.prompt(asked))
        assert answer["expected"].strip() and "assistant" not in answer["expected"]


def test_a_conversation_with_several_answers_makes_an_example_of_each(make_recipe: Any, tmp_path: Path) -> None:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    rows = [{"messages": [{"role": role, "content": f"{text}{n}"} for role, text in said]} for n in range(12)]
    section = {"train": written(rows, tmp_path / "records.jsonl"), "holdout": 0.2, "max_length": 64, "turns": "each"}
    recipe = make_recipe(data=section, evaluation={"answers": 3, "max_new_tokens": 2})
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.manifest["data"]["train_examples"] == 20 and result.manifest["data"]["holdout_examples"] == 4
    expected = [a["expected"][0] for a in json.loads((result.folder / "answers-after.json").read_text())["answers"]]
    assert expected == ["b", "d", "b"]
    (tmp_path / "job.yaml").write_text(json.dumps(recipe))
    shown = CliRunner().invoke(preview, [str(tmp_path / "job.yaml"), "--records", "1", "--json"])
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["authors"][-2]["author"] for line in lines] == ["message 2 (assistant)", "message 4 (assistant)"]


def test_the_question_beside_an_answer_is_the_one_that_it_answers(make_recipe: Any, tmp_path: Path) -> None:
    """Of a conversation whose last answer is not learnt, or does not fit, the one before it is asked for."""
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d" * 40)]
    rows = [{"messages": [{"role": role, "content": f"{text}{n}"} for role, text in said]} for n in range(4)]
    rows[0]["messages"][-1] = {"role": "assistant", "content": "d", "weight": 0}
    section = {"train": written(rows[2:], tmp_path / "a.jsonl"), "holdout": written(rows[:2], tmp_path / "b.jsonl")}
    recipe = make_recipe(data={**section, "max_length": 64}, evaluation={"answers": 2, "max_new_tokens": 2})
    result = graftkit.run(recipe, out=tmp_path / "run")
    answers = json.loads((result.folder / "answers-after.json").read_text())["answers"]
    assert [(answer["question"], answer["expected"]) for answer in answers] == [("a0", "b0"), ("a1", "b1")]


ENDLESS = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_the_end_of_a_turn_may_be_said_and_generation_stops_there(
    make_recipe: Any, chat_records: Path, tmp_path: Path
) -> None:
    section = data(chat_records, tmp_path, ENDLESS)
    without = graftkit.run(make_recipe(data=section), out=tmp_path / "without")
    assert any('data.end_of_turn: "<|im_end|>"' in text for text in without.manifest["notices"])
    recipe = make_recipe(data={**section, "end_of_turn": "<|endoftext|>"}, export=["merged"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert first_row(result.folder).endswith("<|endoftext|>")
    ends = set(result.manifest["stop_tokens"])
    assert ends - set(without.manifest["stop_tokens"])
    assert not any("stop token" in text for text in result.manifest["notices"])
    assert set(json.loads((result.exports["merged"] / "generation_config.json").read_text())["eos_token_id"]) == ends
    with pytest.raises(RequestError, match="'###' does not end with a special token"):
        graftkit.plan(make_recipe(data={**section, "end_of_turn": "###"}))


def test_one_of_several_templates_is_used_and_none_is_lost(
    make_recipe: Any, chat_records: Path, tmp_path: Path
) -> None:
    model = tiny_model_folder(tmp_path / "model")
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "rag.jinja").write_text(TEMPLATE)
    section = {"train": str(chat_records), "holdout": 0.1, "max_length": 64, "chat_template": {"name": "rag"}}
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "chat_template.jinja").write_text(config["chat_template"])
    result = graftkit.run(make_recipe(model=str(model), data=section, export=["merged", "peft"]), out=tmp_path / "run")
    for folder in (result.folder, *result.exports.values()):
        assert prompt_of_generate(folder) == PROMPT
    for folder in tokenizer_folders(result).values():
        theirs = AutoTokenizer.from_pretrained(folder)
        assert theirs.chat_template == {"default": config["chat_template"], "rag": TEMPLATE}
        assert theirs.apply_chat_template(CONVERSATION, chat_template="rag", tokenize=False) == RENDERED
    assert any("ask for its chat template 'rag'" in text for text in result.manifest["notices"])
    with pytest.raises(RequestError, match="no chat template called 'rga'") as caught:
        graftkit.plan(make_recipe(model=str(model), data={**section, "chat_template": {"name": "rga"}}))
    assert "Did you mean 'rag'?" in str(caught.value.hint)
