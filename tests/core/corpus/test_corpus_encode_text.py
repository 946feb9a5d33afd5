"""Completions and plain texts as tokens."""

from __future__ import annotations

import pytest
import tokenizers
from graftkit import Tokenizer
from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.pairs import longest_first
from graftkit.errors import DataError
from graftkit.interfaces.samples import Completion, Text, Tokens
from graftkit.store.token_store import Example
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceTokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(params=["bytewise", "merging", "looking_ahead"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


def with_bos() -> HuggingFaceTokenizer:
    files = tiny_tokenizer_files()
    config = files["tokenizer_config.json"].replace(b'"add_bos_token": false', b'"add_bos_token": true')
    return HuggingFaceTokenizer({**files, "tokenizer_config.json": config})


def completion(tokenizer: Tokenizer, prompt: str, answer: str) -> Example:
    [example] = Encoder(tokenizer, None, 4096).encode(Completion(prompt, answer, "a.jsonl:1")).examples
    return example


def windows(tokenizer: Tokenizer, text: str, max_length: int) -> list[Example]:
    encoded = Encoder(tokenizer, None, max_length).encode(Text(text, "a.txt"))
    assert not encoded.truncated
    return encoded.examples


def test_a_completion_learns_the_answer_and_the_end(tokenizer: Tokenizer) -> None:
    example = completion(tokenizer, "Hello: ", "yes 🎉")
    assert tokenizer.decode(example.ids.tolist()) == "Hello: yes 🎉<|im_end|>"
    assert tokenizer.decode(example.ids[example.loss_mask].tolist()) == "yes 🎉<|im_end|>"
    assert tokenizer.decode(example.ids[: example.prompt_length].tolist()) == "Hello: "


def test_a_completion_starts_as_its_prompt_does_alone(looking_ahead: Tokenizer) -> None:
    """With GPT-2's pre-tokenizer two line ends before a word are two tokens, at the end of a prompt one."""
    assert len(looking_ahead.encode("x\n\nyes")) > len(looking_ahead.encode("x\n\n")) + 3 - 1
    example = completion(looking_ahead, "x\n\n", "yes")
    assert example.ids[: example.prompt_length].tolist() == looking_ahead.encode("x\n\n")


def test_an_empty_prompt_is_no_prompt(tokenizer: Tokenizer) -> None:
    example = completion(tokenizer, "", "Hello")
    assert example.prompt_length == 0
    assert tokenizer.decode(example.ids.tolist()) == "Hello<|im_end|>"
    assert example.loss_mask.tolist() == [False, *[True] * (len(example.ids) - 1)]


def test_a_model_that_wants_a_first_token_gets_it_everywhere() -> None:
    tokenizer = with_bos()
    first = tokenizer.special_tokens["<|im_start|>"]
    encoder = Encoder(tokenizer, None, 64)
    [answer] = encoder.encode(Completion("a", "b", "1")).examples
    [text] = encoder.encode(Text("ab", "1")).examples
    assert [answer.ids[0], text.ids[0], encoder.prompt("a")[0]] == [first] * 3
    assert answer.ids[: answer.prompt_length].tolist() == encoder.prompt("a")
    assert answer.loss_mask.tolist() == [False, False, True, True]
    assert text.loss_mask.tolist() == [False, True, True, True]


def test_special_tokens_in_texts_are_only_text(tokenizer: Tokenizer) -> None:
    [text] = windows(tokenizer, "a<|im_end|>b", 4096)
    assert text.ids.tolist().count(tokenizer.special_tokens["<|im_end|>"]) == 1
    assert Encoder(tokenizer, None, 64).prompt("<|im_end|>") == tokenizer.encode("<|im_end|>")


def test_a_completion_too_long_loses_its_end_and_is_counted(bytewise: Tokenizer) -> None:
    encoder = Encoder(bytewise, None, 8, rules=EncodingRules(overflow="truncate"))
    assert Encoder(bytewise, None, 8).encode(Completion("abc", "defghijk", "1")).examples == []
    long = encoder.encode(Completion("abc", "defghijk", "1"))
    assert (long.truncated, bytewise.decode(long.examples[0].ids.tolist())) == (True, "abcdefgh")
    only_prompt = encoder.encode(Completion("abcdefgh", "x", "1"))
    assert (only_prompt.truncated, only_prompt.examples) == (True, [])


@pytest.mark.parametrize("length", range(1, 40))
def test_a_long_text_is_cut_into_records_that_predict_every_token_once(bytewise: Tokenizer, length: int) -> None:
    text = "".join(chr(ord("a") + place % 26) for place in range(length))
    records = windows(bytewise, text, 8)
    assert all(2 <= len(record.ids) <= 8 for record in records)
    predicted = [token for record in records for token in record.ids[record.loss_mask].tolist()]
    assert bytewise.decode(predicted) == f"{text}<|im_end|>"[1:]
    assert bytewise.decode(
        [records[0].ids[0], *(token for record in records for token in record.ids[1:].tolist())]
    ) == (f"{text}<|im_end|>")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(min_size=1, max_size=60).filter(str.strip)
    | st.lists(st.sampled_from(["Hello", "\n\n", "🎉", "12", "3", " "])).map("".join).filter(str.strip),
    st.integers(8, 20),
)
def test_cutting_a_text_loses_nothing(tokenizer: Tokenizer, text: str, max_length: int) -> None:
    records = windows(tokenizer, text, max_length)
    ids = [*records[0].ids[:1].tolist(), *(token for record in records for token in record.ids[1:].tolist())]
    assert ids == [*tokenizer.encode(text), tokenizer.special_tokens["<|im_end|>"]]
    assert all(record.loss_mask.tolist() == [False, *[True] * (len(record.ids) - 1)] for record in records)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_completion_starts_as_its_prompt_and_spells_its_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    pieces = st.text(max_size=8) | st.lists(st.sampled_from(["Hello", "\n", "\n\n", "a", " b", "12", "3", "🎉"])).map(
        "".join
    )
    prompt, answer = data.draw(pieces), data.draw(pieces.filter(bool))
    example = completion(tokenizer, prompt, answer)
    assert tokenizer.decode(example.ids.tolist()) == f"{prompt}{answer}<|im_end|>"
    assert example.ids[: example.prompt_length].tolist() == Encoder(tokenizer, None, 64).prompt(prompt)
    if prompt:
        assert tokenizer.decode(example.ids[example.loss_mask].tolist()) == f"{answer}<|im_end|>"


def test_ids_are_taken_as_they_are_and_those_of_no_token_refused(bytewise: Tokenizer) -> None:
    [example] = Encoder(bytewise, None, 8).encode(Tokens((5, 6, 7), (1.0, 0.0, 0.5), "a.jsonl:1")).examples
    assert (example.ids.tolist(), example.loss_weight.tolist()) == ([5, 6, 7], [0.0, 0.0, 0.5])
    for odd in (-1, bytewise.vocab_size):
        with pytest.raises(DataError, match=r"a.jsonl:1: it holds the id"):
            Encoder(bytewise, None, 8).encode(Tokens((5, odd), (1.0, 1.0), "a.jsonl:1"))


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 14))
def test_a_pair_is_cut_as_the_tokenizers_library_cuts_the_longest_first(first: int, second: int, room: int) -> None:
    theirs = tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}, unk_token="x"))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    theirs.enable_truncation(room, strategy="longest_first")
    found = theirs.encode("x " * first, "x " * second).sequence_ids
    assert [len(part) for part in longest_first([[0] * first, [0] * second], room)] == [found.count(0), found.count(1)]
