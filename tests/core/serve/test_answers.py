"""An endpoint's answers are those of `toolkit generate`, whole or streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from asgi_client import ask
from click.testing import CliRunner
from graftkit.cli.generate import command
from graftkit.flow.answering import reloaded_model
from graftkit.flow.answering.reload import ReloadedModel, reload
from graftkit.flow.answering.stop_texts import StopTexts
from graftkit.serve.answers import AnswerQueue
from graftkit.serve.app import create_app

TOOL = {"type": "function", "function": {"name": "set_light", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ReloadedModel:
    return reload(str(tiny_model))


@pytest.fixture(scope="module")
def app(model: ReloadedModel) -> Iterator[Any]:
    queue = AnswerQueue(model)
    yield create_app(queue, "tiny")
    queue.stop()


def generated(tiny_model: Path, *options: str) -> Any:
    done = CliRunner().invoke(command, [str(tiny_model), "say 3", "--max-new-tokens", "16", "--json", *options])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def chat(app: Any, **body: Any) -> Any:
    said = {"messages": [{"role": "user", "content": "say 3"}], "max_tokens": 16, "seed": 0}
    return ask(app, "POST", "/v1/chat/completions", {**said, **body})


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"temperature": 3, "seed": 5}, ["--temperature", "3", "--seed", "5"]),
    ({"temperature": 3, "seed": 6, "top_p": 0.9}, ["--temperature", "3", "--seed", "6", "--top-p", "0.9"]),
    ({"top_k": 3, "min_p": 0.1}, ["--top-k", "3", "--min-p", "0.1"]),
    ({"repetition_penalty": 5}, ["--repetition-penalty", "5"]),
]


@pytest.mark.parametrize(("asked", "options"), CHANGES)
def test_a_conversation_is_answered_as_generate_does(
    app: Any, tiny_model: Path, asked: dict[str, Any], options: list[str]
) -> None:
    expected = generated(tiny_model, *options)
    found = chat(app, **asked).json
    [choice] = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected["answer"], "refusal": None}
    assert choice["finish_reason"] == {"length": "length", "end": "stop"}[expected["stopped"]]
    counts = expected["prompt_tokens"], expected["tokens"]
    assert found["usage"] == dict(
        zip(("prompt_tokens", "completion_tokens", "total_tokens"), (*counts, sum(counts)), strict=True)
    )
    assert found["object"] == "chat.completion" and found["model"] == "tiny"


def test_the_changes_of_sampling_change_the_answer(tiny_model: Path) -> None:
    assert len({generated(tiny_model, *options)["answer"] for _, options in CHANGES}) == len(CHANGES)


def test_a_text_is_continued_as_generate_does(app: Any, tiny_model: Path) -> None:
    body = {"prompt": "say 3", "max_tokens": 16, "seed": 0}
    found = ask(app, "POST", "/v1/completions", body).json
    expected = generated(tiny_model, "--plain")
    assert found["object"] == "text_completion" and found["choices"][0]["text"] == expected["answer"]
    assert found["usage"]["prompt_tokens"] == expected["prompt_tokens"] == 5
    streamed = ask(app, "POST", "/v1/completions", {**body, "prompt": ["say 3"], "stream": True}).events
    assert "".join(event["choices"][0]["text"] for event in streamed[:-1]) == expected["answer"]


@pytest.mark.parametrize("stop", [None, "7", ["Z", "W$"]])
def test_the_pieces_of_a_stream_join_to_the_whole_answer(app: Any, stop: Any) -> None:
    whole = chat(app, stop=stop).json
    found = chat(app, stop=stop, stream=True, stream_options={"include_usage": True})
    assert found.headers["content-type"].startswith("text/event-stream")
    *events, usage, done = found.events
    assert done == "[DONE]" and usage["choices"] == [] and usage["usage"] == whole["usage"]
    assert all(event["usage"] is None and event["object"] == "chat.completion.chunk" for event in events)
    assert len({event["id"] for event in (*events, usage)}) == 1 and events[0]["id"] != whole["id"]
    choices = [event["choices"][0] for event in events]
    assert choices[0]["delta"]["role"] == "assistant" and len(choices) > 4
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons == [None] * (len(choices) - 1) + [whole["choices"][0]["finish_reason"]]
    assert "usage" not in chat(app, stream=True).events[0]


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(app: Any) -> None:
    whole = chat(app).json["choices"][0]
    text = whole["message"]["content"]
    assert "7" in text and whole["finish_reason"] == "length"
    [choice] = chat(app, stop=["nowhere", "7"]).json["choices"]
    assert choice["message"]["content"] == text.partition("7")[0] and choice["finish_reason"] == "stop"


@pytest.mark.parametrize("cut", [1, 2, 3, 50])
def test_stop_texts_are_found_wherever_pieces_divide_them(cut: int) -> None:
    def read(text: str, *texts: str) -> str:
        stops = StopTexts(texts)
        found = "".join(stops.push(text[place : place + cut]) for place in range(0, len(text), cut))
        return found + stops.finish()

    assert read("one. two. three", ". t", "two") == "one"
    assert read("aab", "ab") == "a" and read("aaab", "aab", "ab") == "a"
    assert read("abc", "abcd") == "abc" and read("abc") == "abc"


def test_with_a_seed_nothing_is_taken_over_from_the_request_before(app: Any, model: ReloadedModel) -> None:
    def computed(**body: Any) -> int:
        """Returns how many tokens the first pass computes."""
        passes: list[int] = []
        hook = model.network.register_forward_pre_hook(
            lambda module, args, given: passes.append(given["input_ids"].shape[1]), with_kwargs=True
        )
        assert chat(app, **body).status == 200
        hook.remove()
        return passes[0]

    whole = chat(app).json["usage"]["prompt_tokens"]
    assert computed(seed=None) == 1, "the last token, which an answer goes on from"
    assert computed(seed=0) == computed(seed=0, temperature=2) == whole


def test_without_a_seed_drawn_answers_differ(app: Any) -> None:
    assert len({chat(app, seed=None, temperature=5).data.partition(b"choices")[2] for _ in range(3)}) > 1


def test_the_whole_conversation_is_asked(app: Any) -> None:
    turns = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "say"}, {"type": "text", "text": " 3"}]},
        {"role": "assistant", "content": "3", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "<|im_end|>"},
    ]
    tokens = "<system\nbe kind>\n<user\nsay 3>\n<assistant\n3>\n<user\n" + "<|im_end|>" + ">\n<assistant\n"
    asked = chat(app, messages=turns).json["usage"]["prompt_tokens"]
    assert asked == len(tokens), "a token each, < and > for special ones; what a user spells is text"


def test_what_the_template_would_leave_out_is_refused(app: Any) -> None:
    tools = chat(app, tools=[TOOL])
    assert tools.status == 400 and "leaves out" in tools.json["error"]["message"]
    assert chat(app, tools=[TOOL], tool_choice="none").status == 200
    named = chat(app, messages=[{"role": "user", "content": "hello", "name": "Ann"}])
    assert named.status == 400 and "name" in named.json["error"]["message"]


def test_functions_are_offered_and_their_calls_read(model: ReloadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = (files("graftkit.corpus") / "chatml.jinja").read_text()
    calling = replace(model, tokenizer=model.tokenizer.with_chat_template(own))
    queue = AnswerQueue(calling)
    app = create_app(queue, "tiny")
    with_tools, without = chat(app, tools=[TOOL]).json["usage"], chat(app).json["usage"]
    assert with_tools["prompt_tokens"] > without["prompt_tokens"] + len(json.dumps(TOOL))
    tries = list[Any]()
    monkeypatch.setattr(reloaded_model, "call_notation", tries.append)
    monkeypatch.setattr(reloaded_model, "reasoning_notation", tries.append)
    said = '<tool_call>\n{"name": "set_light", "arguments": {"on": true}}\n</tool_call>'
    ids = calling.prompt(said, plain=True)
    monkeypatch.setattr(calling._continuation, "stream", lambda *prompt, **how: iter(ids))
    [choice] = chat(app, tools=[TOOL], max_tokens=500).json["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    [call] = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "set_light", "arguments": '{"on": true}'}
    assert chat(app).json["choices"][0]["message"]["content"] == said, "as it was written where none were offered"
    result = {"role": "tool", "tool_call_id": call["id"], "content": "done"}
    turns = [{"role": "user", "content": "on"}, choice["message"], result]
    assert chat(app, messages=turns, tools=[TOOL]).status == 200
    assert not tries, "how the template writes them was found out with the first request"
    reasoned = f"<think>\nIt is dark.\n</think>\n\n{said}"
    ids[:] = calling.prompt(reasoned, plain=True)
    message = chat(app, max_tokens=500).json["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("It is dark.", said)
    assert chat(app, messages=[turns[0], message, turns[0]]).status == 200, "a client may send it back"
    assert ask(app, "POST", "/v1/completions", {"prompt": "x"}).json["choices"][0]["text"].startswith("<think>")
    queue.stop()


def test_a_prompt_without_room_is_refused(app: Any) -> None:
    for path, body in (
        ("chat/completions", {"messages": [{"role": "user", "content": "a" * 600}]}),
        ("completions", {"prompt": "a" * 600}),
    ):
        found = ask(app, "POST", f"/v1/{path}", body)
        assert found.status == 400 and found.json["error"]["code"] == "context_length_exceeded"
    nearly = chat(app, messages=[{"role": "user", "content": "a" * 485}], max_tokens=100)
    assert nearly.json["usage"]["total_tokens"] <= 512, "an answer has the room that is left"
    assert (
        ask(app, "POST", "/v1/completions", {"prompt": ""}).json["error"]["message"].startswith("the prompt is empty")
    )
