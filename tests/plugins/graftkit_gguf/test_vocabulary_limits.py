"""The tokenizer of a stranger's GGUF file is read within bounds, or refused with a number that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf_models import write_narrow
from graftkit.interfaces.vocabulary_limits import MOST_CHARACTERS, MOST_MERGES, MOST_PIECES
from hostile.limits import Outcome, measure

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _scored(tokens: list[str]) -> dict[str, Any]:
    tokens = ["<unk>", *_BYTES, *tokens]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(place) for place in range(len(tokens))],
        "tokenizer.ggml.token_type": [2, *[6] * 256, *[1] * (len(tokens) - 257)],
    }


def _merged(tokens: list[str], merges: list[str]) -> dict[str, Any]:
    found = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": merges}
    return {**found, "tokenizer.ggml.tokens": tokens}


VOCABULARIES = {
    f"600,257 elements; {MOST_PIECES:,} are allowed": _scored([f"w{number:x}" for number in range(600_000)]),
    f"{MOST_MERGES + 1:,} elements; {MOST_MERGES:,} are allowed": _merged(
        ["a", "b", "ab"], ["a b"] * (MOST_MERGES + 1)
    ),
    "200,000 characters in one element; 1,024 are allowed": _scored(["a", "a" * 200_000]),
    f"characters; {MOST_CHARACTERS:,} are allowed": _scored(
        [f"{number:x}".rjust(1000, "a") for number in range(20_000)]
    ),
    f"merges of their tokens, at least; {MOST_MERGES:,} are allowed": _scored(
        [letter * length for letter in "abcd" for length in range(1, 1000)]
    ),
}
_CODE = """
import tempfile
from pathlib import Path
from graftkit_gguf.header import read_header
from graftkit_gguf.tokenizer import save_tokenizer

def case(path):
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(read_header(Path(path)), Path(folder))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("vocabularies")
    paths = {said: str(folder / f"{number}.gguf") for number, said in enumerate(VOCABULARIES)}
    for said, path in paths.items():
        write_narrow(Path(path), VOCABULARIES[said])
    return measure(_CODE, paths)


@pytest.mark.parametrize("said", VOCABULARIES)
def test_a_vocabulary_beyond_all_models_is_refused_soon(said: str, outcomes: dict[str, Outcome]) -> None:
    outcomes[said].assert_within_limits()
    what = said if said[0].isdigit() else f" {said}"
    assert outcomes[said].error == "ModelError" and what in outcomes[said].message, outcomes[said]
