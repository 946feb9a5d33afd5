"""Special tokens that take the white space beside them take it in training, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftkit.interfaces.samples import Conversation
from tokenizer_pairs import Pair, asked

STRIPPING = {
    "as in Phi-3": {"<|user|>": {"rstrip": True}, "<|assistant|>": {"rstrip": True}, "<|end|>": {"rstrip": True}},
    "as a mask": {"<|user|>": {"lstrip": True}, "<|assistant|>": {"lstrip": True}, "<|end|>": {"lstrip": True}},
    "both": {
        "<|user|>": {"lstrip": True, "rstrip": True},
        "<|assistant|>": {"lstrip": True, "rstrip": True},
        "<|end|>": {"lstrip": True, "rstrip": True},
    },
}
PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + ' <|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", STRIPPING)
@pytest.mark.parametrize("text", ["hi", "  hi \n", "a\n\n", "\n"])
def test_tokens_that_take_white_space_take_it_in_training(tmp_path: Path, name: str, text: str, special: bool) -> None:
    added = {token: {**flags, "special": special} for token, flags in STRIPPING[name].items()}
    pair = Pair(tmp_path, PHI, added)
    messages = (*asked(text, f"{text}yes{text}"), *asked("b", "c"))
    assert pair.trained(*messages) == pair.expected(*messages)
    said = pair.trained(*asked(f"{text}<|end|>{text}", f"{text}yes{text}"), *messages[2:])
    assert said == pair.expected(
        *asked(f"{text}<|end|>{text}", f"{text}yes{text}"), *messages[2:], sanitize_control_tokens=True
    )


@pytest.mark.parametrize("name", STRIPPING)
@pytest.mark.parametrize("text", ["yes", " yes \n", "\n", "a<|end|> "])
def test_what_is_learnt_and_the_prompt_stay_with_their_tokens(tmp_path: Path, name: str, text: str) -> None:
    pair = Pair(tmp_path, PHI, {token: {**flags, "special": True} for token, flags in STRIPPING[name].items()})
    question, answer = asked("hi\n", text)
    [example] = pair.encoder.encode(Conversation((question, answer), "1")).examples
    assert example.ids[: example.prompt_length].tolist() == pair.encoder.prompt(Conversation((question,), "1"))
    learnt = pair.learnt(question, answer, *asked("b", "c"))
    assert learnt.count(pair.ids["<|end|>"]) == 2 and pair.ids["<|user|>"] not in learnt
    assert learnt[-1] == pair.ids["<|end|>"]
