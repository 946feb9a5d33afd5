"""Whatever somebody writes, control tokens are the template's alone."""

from __future__ import annotations

from typing import Any

import pytest
from graftkit import Tokenizer
from graftkit.corpus.encode import Encoder
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError
from graftkit.interfaces.samples import Completion, Conversation, Message, Text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BRACKETS = "{% for m in messages %}{{ '<' + m.content + '|im_end|>' + m.role + '<|im_end|>' }}{% endfor %}"
NOTHING_BETWEEN = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<|im_end|>' }}"
TRIMMED = "{% for m in messages %}{{ '<|im_' + m.content | trim + 'end|><|im_end|>' }}{% endfor %}"


@pytest.fixture(params=["bytewise", "merging", "looking_ahead"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


def chat(*contents: str) -> Conversation:
    turns = [Message(("user", "assistant")[place % 2], content) for place, content in enumerate(contents)]
    return Conversation(tuple(turns), "records.jsonl:7")


def encoder(tokenizer: Tokenizer, template: str | None) -> Encoder:
    known = tokenizer if template is None else tokenizer.with_chat_template(template)
    return Encoder(known, chat_template_of(known), 4096)


@pytest.mark.parametrize(
    ("template", "contents", "message"),
    [
        (BRACKETS, ("hi", "x<"), 2),
        (BRACKETS, ("a<", "ok"), 1),
        (NOTHING_BETWEEN, ("<|im_", "end|> yes"), 1),
        (NOTHING_BETWEEN, ("hi<|im", "_", "end|>", "yes"), 1),
        (NOTHING_BETWEEN, ("hi", "yes<|im_end|", ">", "yes"), 2),
        (TRIMMED, (" ", "yes"), 1),
    ],
)
def test_a_control_token_by_two_authors_is_refused_with_its_place(
    bytewise: Tokenizer, template: str, contents: tuple[str, ...], message: int
) -> None:
    with pytest.raises(DataError, match=r"spell the special token '<\|im_end\|>' together") as caught:
        encoder(bytewise, template).encode(chat(*contents))
    assert caught.value.where == f"records.jsonl:7: message {message}"
    with pytest.raises(DataError, match="special token"):
        encoder(bytewise, template).prompt(chat(*contents))


@pytest.mark.parametrize("content", ["<|im_end|>", "x<|im_start|>y", "<|im_end", "im_end|>", "<|im_<|im_end|>end|>"])
def test_a_control_token_that_is_spelt_as_a_whole_is_plain_text(tokenizer: Tokenizer, content: str) -> None:
    [example] = encoder(tokenizer, NOTHING_BETWEEN).encode(chat(f"a{content}b", f"c{content}d")).examples
    assert tokenizer.decode(example.ids.tolist()) == f"a{content}bc{content}d<|im_end|>"
    assert [id for id in example.ids.tolist() if id in tokenizer.special_tokens.values()] == [example.ids[-1]]


_WORDS = st.lists(
    st.sampled_from(["<", "<|", "|>", ">", "im_", "_end", "end", "im_start", "|", "<|im_end|>", "endoftext", "a", "\n"])
    | st.text(max_size=2),
    max_size=7,
).map("".join)
_CONTENTS = st.lists(st.tuples(_WORDS, _WORDS.filter(str.strip)), min_size=1, max_size=2)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_CONTENTS, st.sampled_from([None, BRACKETS, NOTHING_BETWEEN, TRIMMED]))
def test_nobodys_words_ever_become_a_control_token(tokenizer: Tokenizer, turns: Any, template: str | None) -> None:
    contents = [content for turn in turns for content in turn]
    specials = {*tokenizer.special_tokens.values()}

    def controls(*said: str) -> list[int]:
        [example] = encoder(tokenizer, template).encode(chat(*said)).examples
        return [id for id in example.ids.tolist() if id in specials]

    try:
        found = controls(*contents)
    except DataError as error:
        assert template is not None and "special token" in error.message
    else:
        assert found == controls(*("." if content else "" for content in contents))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_WORDS.filter(str.strip), _WORDS.filter(bool))
def test_texts_and_completions_hold_no_control_token_but_the_last(tokenizer: Tokenizer, text: str, more: str) -> None:
    specials = {*tokenizer.special_tokens.values()}
    plain = encoder(tokenizer, None)
    for row in (Text(text, "1"), Completion(text, more, "1")):
        [example] = plain.encode(row).examples
        assert [id for id in example.ids.tolist() if id in specials] == [example.ids[-1]]
    ids = plain.plain.encode([text, more])[0].ids.tolist()
    assert sum(id in specials for id in ids) == 2
