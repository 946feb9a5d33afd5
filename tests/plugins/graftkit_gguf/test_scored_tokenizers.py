"""Tokenizers whose pieces have scores, as GGUF: llama.cpp cuts text as the model does, and so does what is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from gguf_models import write_narrow
from graftkit.errors import ExportError, ModelError
from graftkit.interfaces.vocabulary_limits import MOST_PIECES
from graftkit.testing import tiny_tokenizer_files
from graftkit.tokenization.scored_pieces import merges_of_scores, scores_of_merges
from graftkit.tokenization.tokenizer_json import added_token
from graftkit_gguf.header import read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.tokenizer import save_tokenizer
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_models import MISTRAL, corpus, loaded
from tokenizers import Tokenizer

ROLES = {"bos": 1, "eos": 2, "unk": 0, "pad": None}


def read_back(path: Path, folder: Path) -> Tokenizer:
    folder.mkdir()
    save_tokenizer(read_header(path), folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mistral")
    loaded(MISTRAL).save(folder)
    spec: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
    return spec


def metadata_of(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    rows = max(*spec["model"]["vocab"].values(), *(token["id"] for token in spec["added_tokens"])) + 1
    return tokenizer_metadata(folder, rows, ROLES, (True, False), [2])


@pytest.mark.parametrize("form", ["prefix", "no prefix", "metaspace", "user-defined"])
def test_a_real_model_cuts_text_alike_everywhere(tmp_path: Path, mistral: dict[str, Any], form: str) -> None:
    spec = deepcopy(mistral)
    if form == "no prefix":
        spec["normalizer"]["normalizers"].pop(0)
        spec["decoder"]["decoders"].pop()
    if form == "metaspace":
        spec["normalizer"] = None
        spec["decoder"]["decoders"].pop()
        spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
    if form == "user-defined":
        spec["added_tokens"] += [added_token(32000 + n, text, special=False) for n, text in enumerate(("<f(>", "    "))]
    path = write_narrow(tmp_path / "model.gguf", metadata_of(spec, tmp_path))
    own, again = Tokenizer.from_str(json.dumps(spec)), read_back(path, tmp_path / "again")
    with LlamaCpp(path, 64) as program:
        for text in ["<s>a</s> b <f(>c<f(> d</s>", *[text for text in corpus() if text][::12]]:
            ids = own.encode(text, add_special_tokens=False).ids
            assert program.tokens(text) == ids
            assert again.encode(text, add_special_tokens=False).ids == ids
            assert program.tokens(text, whole=True) == again.encode(text).ids
            assert again.decode(ids) == own.decode(ids)


REFUSED: dict[str, Callable[[dict[str, Any]], object]] = {
    "puts one before each text between special tokens, whatever that starts with, or before none": lambda spec: (
        spec.update(
            normalizer=None,
            pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        )
    ),
    "writes spaces in a way": lambda spec: spec["normalizer"]["normalizers"].insert(0, {"type": "NFKC"}),
    "a token for each byte": lambda spec: spec["model"].update(byte_fallback=False),
    "'▁' and 't' are not merged, though '▁t' is a piece": lambda spec: spec["model"]["merges"].remove(["▁", "t"]),
    "merges of other pieces between them": lambda spec: spec["model"]["merges"].append(["▁", "t"]),
    "of the kind WordLevel has no form": lambda spec: spec["model"].update(type="WordLevel"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_llama_cpp_would_cut_otherwise_is_refused(tmp_path: Path, mistral: dict[str, Any], message: str) -> None:
    spec = deepcopy(mistral)
    REFUSED[message](spec)
    with pytest.raises(ExportError, match=re.escape(message)):
        metadata_of(spec, tmp_path)


def test_a_model_without_a_tokenizer_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no tokenizer.json gives the ids"):
        tokenizer_metadata(tmp_path, 3, ROLES, (True, False), [2])


def test_a_vocabulary_that_no_gguf_is_read_with_is_refused_before_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tiny_tokenizer_files()["tokenizer.json"])
    with pytest.raises(ExportError, match="its vocabulary of 300,001 is too large: a GGUF's may have 300,000 here"):
        tokenizer_metadata(tmp_path, MOST_PIECES + 1, ROLES, (True, False), [2])


CHANGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "tokenizer.ggml.scores is an array of 31999, but there are 32,000 tokens": lambda values: values[
        "tokenizer.ggml.scores"
    ].pop(),
    "not an array of numbers": lambda values: values["tokenizer.ggml.scores"].__setitem__(5, float("nan")),
    "without a token for the byte <0x0A>": lambda values: values["tokenizer.ggml.tokens"].__setitem__(13, "<0x0a>"),
    "remove_extra_whitespaces": lambda values: values.update({"tokenizer.ggml.remove_extra_whitespaces": True}),
    "its metadata has no tokenizer.ggml.scores": lambda values: values.pop("tokenizer.ggml.scores"),
}


@pytest.mark.parametrize("message", CHANGED)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, mistral: dict[str, Any], message: str) -> None:
    values = metadata_of(deepcopy(mistral), tmp_path)
    CHANGED[message](values)
    path = write_narrow(tmp_path / "model.gguf", values)
    with pytest.raises(ModelError, match=re.escape(message)):
        save_tokenizer(read_header(path), tmp_path)


@given(st.dictionaries(st.text("ab▁", min_size=1, max_size=4), st.integers(-99, 0), max_size=30))
def test_scores_of_merges_order_them_as_before(scores: dict[str, float]) -> None:
    distinct = {piece: score - place / 100 for place, (piece, score) in enumerate(scores.items())}
    merges = list(merges_of_scores(distinct))
    assert list(merges_of_scores(scores_of_merges(distinct, merges))) == merges
