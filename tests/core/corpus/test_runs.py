"""Records encoded together, cut where the tokenizer cuts for certain, have the tokens that they have one by one."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from graftkit.corpus.encode import Encoded, Encoder
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError
from graftkit.interfaces.samples import Completion, Conversation, Message, Sample, Text, Tokens
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, kind_of_tokenizer

TEMPLATES = {
    "special tokens": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "spaced": "{% for m in messages %}{{ 'User' if m.role == 'user' else 'Assistant' }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}",
    "lines": "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}",
    "one special token": "<|im_start|>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "glued": "{% for m in messages %}{{ m.content }}{% endfor %}",
}

WORDS = [
    "the",
    " quick",
    "  fox",
    "\n",
    "\n\n\n",
    " ",
    "dogs,",
    "12",
    "345",
    "don't",
    ".",
    "日",
    "東京",
    "é",
    "\u0301",
    ": ",
]
MARKS = ["<think>", "<|im_end", "x"]
CONTENTS = st.lists(st.sampled_from(WORDS + MARKS), min_size=1, max_size=8).map("".join).filter(str.strip)
WEIGHTS = st.sampled_from([None, None, None, 0.0, 0.5, 1.0])


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    found = []
    for number in range(draw(st.integers(1, 4))):
        found.append(Message("user", draw(CONTENTS), draw(WEIGHTS)))
        found.append(Message("assistant", draw(CONTENTS), draw(WEIGHTS) if number else None))
    return Conversation(tuple(found), "x")


COMPLETIONS = st.builds(Completion, CONTENTS | st.just(""), CONTENTS, st.just("x"))
SAMPLES = conversations() | COMPLETIONS | CONTENTS.map(lambda text: Text(text, "x"))


@cache
def encoders(kind: str, template: str) -> tuple[Encoder, Encoder]:
    """Returns an encoder, and one that is not told where its tokenizer cuts."""
    tokenizer = kind_of_tokenizer(kind, TEMPLATES[template])
    ours, plain = (Encoder(tokenizer, chat_template_of(tokenizer), 1 << 20) for _ in range(2))
    plain._runs_together._cuts = None
    return ours, plain


def _told(found: Encoded) -> Any:
    examples = [(one.ids.tolist(), one.loss_weight.tolist(), one.prompt_length) for one in found.examples]
    return examples, found.truncated, found.stops, found.left_out


def _each(encoder: Encoder, samples: list[Sample]) -> list[Any]:
    return [_told(encoder.encode(sample)) for sample in samples]


def _accepted(encoder: Encoder, sample: Sample) -> bool:
    try:
        encoder.encode(sample)
    except DataError:
        return False
    return True


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(samples=st.lists(SAMPLES, min_size=1, max_size=4))
def test_records_together_have_the_tokens_of_the_plain_way(kind: str, template: str, samples: list[Sample]) -> None:
    ours, plain = encoders(kind, template)
    samples = [sample for sample in samples if _accepted(plain, sample)]
    assert [_told(found) for found in ours.encode_many(samples)] == _each(plain, samples)
    assert _each(ours, samples) == _each(plain, samples)


def test_the_first_record_that_is_refused_is_told() -> None:
    tokenizer = HuggingFaceTokenizer(tiny_tokenizer_files())
    encoder = Encoder(tokenizer, None, 100, rows=tokenizer.vocab_size - 1)
    fine, lacking = (Tokens((1, id), (0.0, 1.0), where) for id, where in ((2, "fine"), (258, "no row")))
    chat = Conversation((Message("user", "a"), Message("assistant", "b")), "no template")
    assert len(encoder.encode_many([fine])) == 1
    for samples, where in (([fine, lacking, chat], "no row"), ([fine, chat, lacking], "no template")):
        with pytest.raises(DataError) as refused:
            encoder.encode_many(samples)
        assert re.match(where, str(refused.value))


def test_a_token_that_would_go_on_into_the_answer_is_cut_there() -> None:
    ours, plain = encoders("byte-level, gpt2", "special tokens")
    sample = Conversation((Message("user", "a"), Message("assistant", "\n\n the quick")), "x")
    assert _told(ours.encode(sample)) == _told(plain.encode(sample))
    assert ours.tokenizer.encode("assistant\n\n\n") != [
        *ours.tokenizer.encode("assistant\n"),
        *ours.tokenizer.encode("\n\n"),
    ]
