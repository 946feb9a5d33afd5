"""What `ollama create` reads of a Modelfile, whatever stands in the texts that it quotes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from graftkit_gguf.modelfile import adapter_modelfile, model_modelfile, quoted
from hypothesis import example, given
from hypothesis import strategies as st

QUOTES = '"' * 3
HOSTILE = st.text(alphabet=st.sampled_from('"\n\r \t#aFROM é<|>'), max_size=14)
TEXTS = st.one_of(HOSTILE, st.text(max_size=20))


def commands(text: str) -> list[tuple[str, str]]:
    """Reads a Modelfile as ollama's parser/parser.go does: each instruction, a parameter by its name, and its value."""
    found: list[tuple[str, str]] = []
    state, buffer, name = "nil", "", ""
    for character in text:
        newline, space = character in "\r\n", character in " \t"
        if state == "nil":
            if not (newline or space):
                state, buffer = ("comment", "") if character == "#" else ("name", character)
        elif state == "comment":
            state = "nil" if newline else state
        elif state in ("name", "parameter"):
            if not space:
                assert character.isalnum() or character == "_", f"no command: {buffer + character!r}"
                buffer += character
            elif state == "name" and buffer.lower() == "parameter":
                state, buffer = "parameter", ""
            else:
                assert state == "parameter" or buffer in ("FROM", "ADAPTER", "SYSTEM"), buffer
                state, name, buffer = "value", buffer, ""
        elif newline and unquoted(buffer.strip()) is not None:
            found.append((name, str(unquoted(buffer.strip()))))
            state, buffer = "nil", ""
        elif newline or space or character.isprintable():
            buffer += character
    assert state in ("nil", "comment"), f"an instruction has no end: {buffer!r}"
    return found


def unquoted(text: str) -> str | None:
    """Returns a value without its quotes, or None where they have no end yet."""
    for quotes in (QUOTES, '"'):
        if text.startswith(quotes):
            ends = len(text) >= 2 * len(quotes) and text.endswith(quotes)
            return text[len(quotes) : -len(quotes)] if ends else None
    return text


def trained(**given: Any) -> Any:
    tokenizer = SimpleNamespace(special_tokens=given.pop("specials", {}), decode=lambda ids: f"<{ids[0]}>")
    return SimpleNamespace(**{"generation_config": {}, "system": None, "reference": "", "tokenizer": tokenizer} | given)


@given(TEXTS)
@example(f"one{QUOTES}\nFROM elsewhere")
@example(f'"{QUOTES} \nPARAMETER stop x')
@example(QUOTES)
@example("")
def test_a_quoted_text_is_read_back_as_it_is(text: str) -> None:
    value = quoted(text)
    if value is not None:
        assert commands(f"SYSTEM {value}\nFROM x\n") == [("SYSTEM", text), ("FROM", "x")]


@given(HOSTILE)
def test_only_what_ollama_can_not_hold_is_left_out(text: str) -> None:
    """No quotes of its own at the end of a line, nothing that is not printable: everything else has a form."""
    if QUOTES not in text:
        assert quoted(text) is not None


@given(system=TEXTS, token=TEXTS)
def test_no_text_of_a_stranger_becomes_an_instruction(system: str, token: str) -> None:
    model = trained(system=system, specials={token: 7}, generation_config={"eos_token_id": [7, 8]})
    allowed = [("FROM", "./model.gguf"), ("stop", token), ("stop", "<7>"), ("stop", "<8>"), ("SYSTEM", system)]
    found = commands(model_modelfile(model, "model.gguf"))
    assert found[0] == allowed[0] and ("stop", "<8>") in found
    assert set(found) <= set(allowed)


def test_sampling_is_that_of_the_generation_settings() -> None:
    settings = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1, "x": 1}
    found = commands(model_modelfile(trained(generation_config=settings), "model.gguf"))
    assert found[1:] == [("temperature", "0.6"), ("top_p", "0.95"), ("repeat_penalty", "1.1"), ("top_k", "20")]


@pytest.mark.parametrize("odd", ["1\nSYSTEM evil", [0.6], True, float("nan"), float("inf"), None])
def test_a_setting_that_is_no_number_is_left_out(odd: Any) -> None:
    settings = {"do_sample": True, "temperature": odd, "top_k": odd}
    assert commands(model_modelfile(trained(generation_config=settings), "m.gguf")) == [("FROM", "./m.gguf")]


def test_greedy_decoding_is_said() -> None:
    settings = {"do_sample": False, "temperature": 0.6}
    assert commands(model_modelfile(trained(generation_config=settings), "m.gguf"))[1:] == [("temperature", "0")]


@pytest.mark.parametrize("name", ["base.gguf", "a b.gguf", "#b.gguf", 'q"q.gguf'])
def test_an_adapter_names_its_base_without_its_path(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    text = adapter_modelfile(trained(reference=str(tmp_path / name)), "adapter.gguf")
    assert text.startswith("# Put the path of the base model") and str(tmp_path) not in text
    assert commands(text) == [("FROM", f"./{name}"), ("ADAPTER", "./adapter.gguf")]


@pytest.mark.parametrize("reference", ["org/name", f"a{QUOTES}\nSYSTEM evil", "package:nowhere/x.gguf", "\0"])
def test_a_base_without_a_path_is_left_to_fill_in(reference: str) -> None:
    text = adapter_modelfile(trained(reference=reference), "adapter.gguf")
    assert text.startswith("# Put the path of the base model")
    assert commands(text) == [("FROM", "./base.gguf"), ("ADAPTER", "./adapter.gguf")]
