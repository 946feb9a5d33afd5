"""What a GGUF export says besides weights: the form of Unicode, the tokens that end an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_models import write_narrow
from graftkit.errors import ExportError
from graftkit.testing.tiny import tiny_tokenizer_files
from graftkit_gguf.header import read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.tokenizer import save_tokenizer
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from graftkit_gguf.unicode_form import in_form
from tokenizers import Tokenizer

ROLES = {"bos": 257, "eos": 258, "unk": None, "pad": 256}


def metadata(folder: Path, stop: list[int] | None = None, **parts: Any) -> dict[str, Any]:
    spec = json.loads(tiny_tokenizer_files()["tokenizer.json"]) | parts
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return tokenizer_metadata(folder, 320, ROLES, (False, False), stop or [258])


@pytest.mark.parametrize("form", ["NFC", "NFKD"])
def test_a_form_of_unicode_is_kept_for_whoever_gives_text(tmp_path: Path, form: str) -> None:
    for name, normalizer in (
        ("alone", {"type": form}),
        ("in a sequence", {"type": "Sequence", "normalizers": [{"type": form}]}),
    ):
        path = write_narrow(tmp_path / f"{name}.gguf", metadata(tmp_path, normalizer=normalizer))
        own = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        again = tmp_path / name
        again.mkdir()
        header = read_header(path)
        save_tokenizer(header, again)
        read = Tokenizer.from_file(str(again / "tokenizer.json"))
        with LlamaCpp(path, 64) as program:
            for text in ("cafe\u0301 é ﬁ Å", "<|im_start|>e\u0301<|im_end|>"):
                ids = own.encode(text, add_special_tokens=False).ids
                assert read.encode(text, add_special_tokens=False).ids == ids
                assert program.tokens(in_form(text, header.metadata)) == ids
            assert program.tokens("cafe\u0301 é ﬁ Å") != own.encode("cafe\u0301 é ﬁ Å").ids


@pytest.mark.parametrize(
    "normalizer", [{"type": "Lowercase"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 2}]
)
def test_another_change_of_text_is_refused(tmp_path: Path, normalizer: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match="changes text before it cuts it"):
        metadata(tmp_path, normalizer=normalizer)


def test_an_answer_ends_at_each_stop_token_and_at_no_other(tmp_path: Path) -> None:
    path = write_narrow(tmp_path / "model.gguf", metadata(tmp_path, stop=[258, 65, 66]))
    with LlamaCpp(path, 64) as program:
        assert [id for id in (*range(60, 70), 258) if program.ends_at(id)] == [65, 66, 258]
