"""An error fits on a screen, whatever it quotes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graftkit.errors import DataError, GraftkitError, ModelError
from graftkit.testing.records import read_samples


@pytest.mark.parametrize(
    "text",
    [
        "key " * 10**6,
        "k" * 10**7,
        "a\n" * 10**6,
        "'x', " * 5 * 10**6,
        "word\n" + "é" * 5000,
        "x" * 199 + "\n" + "y" * 9999,
    ],
    ids=["words", "one word", "lines", "a list", "a long word", "two words"],
)
def test_it_is_shortened(text: str) -> None:
    error = GraftkitError(f"begins {text} ends", where="a.jsonl:1", hint=f"do {text}")
    assert error.message.startswith("begins ")
    assert error.message.endswith(" ends")
    assert len(str(error)) < 4000
    assert str(error).count("\n") < 50
    assert "..." in error.message


@pytest.mark.parametrize("text", ["short", "", "two\nlines", "a/path/of/" + "x" * 150, "a sentence. " * 100])
def test_a_short_one_stays(text: str) -> None:
    assert GraftkitError(text, hint=text).message == text
    shown = text.replace("\n", "\n  ")
    assert str(GraftkitError(text, where="here", hint=text or "do")) == f"here: {shown}\n{shown or 'do'}"


@pytest.mark.parametrize("part", ["message", "where", "hint"])
def test_what_is_quoted_begins_no_line(part: str) -> None:
    """A model's type, the name of a template, or what a template raises may be lines that look like graftkit's own."""
    given = {"message": "it is wrong", part: "it is 'a\nerror: forged\n\nnote: forged'"}
    lines = str(GraftkitError(**given)).split("\n")
    assert not [line for line in lines if line.startswith(("error", "note"))] and "forged" in "".join(lines)


def test_errors_of_errors_do_not_grow() -> None:
    error = ModelError("x " * 10**5)
    for _ in range(50):
        error = ModelError(f"{error.message}", hint=error.hint)
    assert len(str(error)) < 2500


@pytest.mark.parametrize(
    "row",
    [
        {f"key {n}": 1 for n in range(100_000)},
        {"messages": [{"role": "r" * 10**6, "content": "x"}]},
        {"messages": [{f"key {n}": 1 for n in range(100_000)}]},
    ],
    ids=["keys", "a role", "keys of a message"],
)
def test_what_a_row_quotes_is_shortened(row: object, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="records.jsonl:1") as caught:
        read_samples(tmp_path / "records.jsonl")
    assert len(str(caught.value)) < 2500
