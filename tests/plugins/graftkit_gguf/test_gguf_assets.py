"""What a GGUF export says besides weights: the form of Unicode, the tokens that end an answer."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gguf_models import write_narrow
from graftkit import ProofRequest
from graftkit.errors import ExportError
from graftkit.testing.tiny import tiny_tokenizer_files
from graftkit.tokenization.tokenizer_json import added_token
from graftkit_gguf.header import read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.model_exporter import _only_in_the_modelfile
from graftkit_gguf.stop_tokens import _KNOWN, stop_notices, stored_stops
from graftkit_gguf.text_form import in_form
from graftkit_gguf.tokenizer import save_tokenizer
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
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


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
@pytest.mark.parametrize("special", [True, False])
def test_an_added_token_that_llama_cpp_finds_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, special: bool
) -> None:
    """What is refused is what it finds elsewhere than the tokenizers library, and nothing else is."""
    added = json.loads(tiny_tokenizer_files()["tokenizer.json"])["added_tokens"]
    added.append({**added_token(259, "<|x|>", special=special), flag: True})
    refused: Any = (
        nullcontext() if flag == "normalized" else pytest.raises(ExportError, match=rf"'<\|x\|>' .*\({flag}\)")
    )
    with refused:
        metadata(tmp_path, added_tokens=added)
    monkeypatch.setattr("graftkit_gguf.tokenizer_metadata._ONLY_THERE", {})
    path = write_narrow(tmp_path / "model.gguf", metadata(tmp_path, added_tokens=added))
    own, text = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), "a<|x|>b <|x|> c"
    with LlamaCpp(path, 64) as program:
        alike = program.tokens(text) == own.encode(text, add_special_tokens=False).ids
    assert alike == (flag == "normalized")


def test_llama_cpp_ends_at_tokens_that_it_knows_by_their_texts(tmp_path: Path) -> None:
    known, others = sorted(_KNOWN), ["<|user|>", "<|stop|>", "<|end|>"]
    spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    texts = [text for text in (*known, *others) if text not in {one["content"] for one in spec["added_tokens"]}]
    spec["added_tokens"] += [{"id": 260 + n, "content": text, "special": True} for n, text in enumerate(texts)]
    found = metadata(tmp_path, added_tokens=spec["added_tokens"])
    with LlamaCpp(write_narrow(tmp_path / "model.gguf", found), 64) as program:
        ends = [text for n, text in enumerate(texts) if program.ends_at(260 + n)]
    assert ends == [text for text in texts if text in known]


def test_what_ends_an_answer_by_its_text_leaves_room_for_what_does_not() -> None:
    texts = {1: "</s>", 2: "<|im_end|>", 3: "<|eot_id|>", 4: "<|a|>", 5: "<|b|>", 6: "<|c|>", 7: "<|end|>"}
    found = stored_stops([1, 2, 3, 4, 5, 7], 1, texts)
    assert sorted(found.metadata.values()) == [4, 5] and found.without_room == []
    found = stored_stops([1, 2, 4, 5, 6, 7], 1, texts)
    assert sorted(found.metadata.values()) == [4, 5] and found.without_room == [6]
    assert stored_stops([4, 5, 6, 7], 1, texts | {8: "<|return|>"}).without_room == [6, 7]


def test_a_stop_token_without_room_is_told_and_proved_by_the_modelfile(tmp_path: Path) -> None:
    stop = [258, 65, 66, 67]
    path = write_narrow(tmp_path / "model.gguf", metadata(tmp_path, stop=stop))
    tokenizer: Any = SimpleNamespace(
        special_tokens={"<|im_end|>": 258}, role_token=lambda role: ROLES[role], decode=lambda ids: chr(ids[0])
    )
    [told] = stop_notices(tokenizer, stop)
    assert "does not end at 'C' (67): Ollama does" in told
    header = read_header(path)
    request: Any = ProofRequest(tmp_path, [], list, stop_tokens=stop)
    assert _only_in_the_modelfile(request, header.metadata) == set()
    token = header.metadata["tokenizer.ggml.tokens"][67]  # type: ignore[index]
    (tmp_path / "Modelfile").write_text(f'FROM ./model.gguf\nPARAMETER stop """{token}"""\n')
    assert _only_in_the_modelfile(request, header.metadata) == {67}


def test_an_answer_ends_at_each_stop_token_and_at_no_other(tmp_path: Path) -> None:
    path = write_narrow(tmp_path / "model.gguf", metadata(tmp_path, stop=[258, 65, 66]))
    with LlamaCpp(path, 64) as program:
        assert [id for id in (*range(60, 70), 258) if program.ends_at(id)] == [65, 66, 258]
