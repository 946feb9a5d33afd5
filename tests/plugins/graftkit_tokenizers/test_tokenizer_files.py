"""A tokenizer's folder: read strictly, saved byte by byte, known by one fingerprint."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit import Tokenizer
from graftkit.errors import ModelError, RequestError
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.tokenizer_json import tokenizer as tokenizer_module
from hypothesis import given, settings
from hypothesis import strategies as st

Make = Callable[..., HuggingFaceTokenizer]
FILES = tiny_tokenizer_files()


def written(folder: Path, **files: bytes) -> Path:
    for name, data in {**FILES, **{name.replace("__", "."): data for name, data in files.items()}}.items():
        (folder / name).write_bytes(data)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        HuggingFaceBackend().load(folder)
    assert caught.value.where == str(folder)
    return caught.value.message


def test_a_folder_is_loaded_and_saved_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    written(tmp_path / "from", special_tokens_map__json=b"{ }\n", chat_template__jinja="é\n".encode(), readme__md=b"x")
    HuggingFaceBackend().load(tmp_path / "from").save(tmp_path / "to")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()}
    extra = {"special_tokens_map.json": b"{ }\n", "chat_template.jinja": "é\n".encode()}
    assert kept == {**FILES, **extra}


def test_it_keeps_the_interface() -> None:
    tokenizer = HuggingFaceTokenizer(FILES)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.special_tokens == {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
    roles: list[Any] = ["bos", "eos", "pad", "unk"]
    assert [tokenizer.role_token(role) for role in roles] == [257, 258, 256, None]


def test_another_format_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="can't be saved as 'sentencepiece'"):
        HuggingFaceTokenizer(FILES).save(tmp_path, "sentencepiece")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer__json", b"{", "tokenizer.json is no JSON"),
        ("tokenizer__json", b"[]", "tokenizer.json is no JSON object"),
        ("tokenizer__json", b"\xff\xfe\xfd", "tokenizer.json is no JSON"),
        ("tokenizer__json", b"[" * 100_000, "tokenizer.json is no JSON"),
        ("tokenizer__json", b'{"a": ' + b"9" * 5000 + b"}", "tokenizer.json is no JSON"),
        ("tokenizer__json", b"{}", "tokenizer.json can't be used"),
        ("tokenizer__json", FILES["tokenizer.json"].replace(b'"BPE"', b'"XYZ"'), "tokenizer.json can't be used"),
        ("tokenizer__json", FILES["tokenizer.json"].replace(b'"id": 258', b'"id": 300'), "the id 300"),
        ("tokenizer_config__json", b"[]", "tokenizer_config.json is no JSON object"),
        ("special_tokens_map__json", b"nothing", "special_tokens_map.json is no JSON"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    assert message in refusal(written(tmp_path, **{name: content}))


def test_a_folder_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "there is no tokenizer.json"


def test_a_bad_regular_expression_is_refused(make: Make) -> None:
    def split_badly(spec: dict[str, Any]) -> None:
        spec["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}

    with pytest.raises(ModelError, match="tokenizer.json can't be used"):
        make("byte_level", split_badly)


class PanicException(BaseException):
    """What a panic in Rust arrives as: no Exception, so that nobody catches it by accident."""


def test_a_panic_of_the_library_is_refused_and_a_stop_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panicking:
        error: BaseException = PanicException("index out of bounds")

        @classmethod
        def from_str(cls, _: str) -> None:
            raise cls.error

    monkeypatch.setattr(tokenizer_module, "Backend", Panicking)
    with pytest.raises(ModelError, match="index out of bounds"):
        HuggingFaceTokenizer(FILES)
    Panicking.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        HuggingFaceTokenizer(FILES)


def test_the_chat_template_comes_from_its_file_or_the_configuration(make: Make) -> None:
    assert make().chat_template is None
    assert make(chat_template="{{ x }}").chat_template == "{{ x }}"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert make(chat_template=named).chat_template == "d"
    assert make(chat_template=named[:1]).chat_template is None
    assert make(chat_template=3).chat_template is None
    assert HuggingFaceTokenizer({**FILES, "chat_template.jinja": "é".encode()}).chat_template == "é"
    with pytest.raises(ModelError, match=r"chat_template\.jinja is not UTF-8"):
        _ = HuggingFaceTokenizer({**FILES, "chat_template.jinja": b"\xff"}).chat_template


def test_roles_come_from_either_configuration_file(make: Make) -> None:
    assert make(eos_token={"content": "<|im_end|>", "lstrip": False}).role_token("eos") == 262
    assert make(eos_token="nowhere").role_token("eos") is None
    assert make(eos_token=None).role_token("eos") is None
    files = {**FILES, "tokenizer_config.json": b'{"eos_token": "<|im_end|>"}'}
    files["special_tokens_map.json"] = b'{"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}'
    tokenizer = HuggingFaceTokenizer(files)
    assert (tokenizer.role_token("eos"), tokenizer.role_token("pad")) == (258, 256)


def test_the_fingerprint_is_of_the_meaning_not_of_the_spelling(make: Make) -> None:
    spec = json.loads(FILES["tokenizer.json"])
    compact = HuggingFaceTokenizer({**FILES, "tokenizer.json": json.dumps(spec).encode()})
    backwards = dict(reversed(spec.items()))
    assert compact.fingerprint == HuggingFaceTokenizer(FILES).fingerprint
    assert HuggingFaceTokenizer({"tokenizer.json": json.dumps(backwards).encode()}).fingerprint == compact.fingerprint
    assert make().fingerprint != compact.fingerprint


def test_the_fingerprint_and_the_ids_are_the_same_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from graftkit_tokenizers.huggingface import HuggingFaceBackend\n"
        "t = HuggingFaceBackend().load(Path(sys.argv[1])); print(t.fingerprint, t.encode('hi <|im_end|> é'))"
    )
    command = [sys.executable, "-c", code, str(written(tmp_path))]
    found = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    tokenizer = HuggingFaceTokenizer(FILES)
    assert found == {f"{tokenizer.fingerprint} {tokenizer.encode('hi <|im_end|> é')}\n"}


PREFIX_SPACE = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
REMOVED = {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}
ISOLATED = {**REMOVED, "behavior": "Isolated"}
BYTE_LEVEL = {**PREFIX_SPACE, "add_prefix_space": False}


@pytest.mark.parametrize(
    ("part", "lossless"),
    [
        (BYTE_LEVEL, True),
        (PREFIX_SPACE, False),
        (
            {
                "type": "Sequence",
                "pretokenizers": [ISOLATED, {"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
            },
            True,
        ),
        ({"type": "Sequence", "pretokenizers": [REMOVED, BYTE_LEVEL]}, False),
        ({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, BYTE_LEVEL]}, False),
        (None, False),
    ],
)
def test_only_parts_that_keep_every_character_are_promised_to(make: Make, part: object, lossless: bool) -> None:
    tokenizer = make("byte_level", lambda spec: spec.update(pre_tokenizer=part))
    assert tokenizer.capabilities.lossless_unicode == tokenizer.capabilities.lossless_bytes == lossless
    comes_back = all(tokenizer.decode(tokenizer.encode(text)) == text for text in ("a b", "12 é", " x", "é"))
    assert comes_back == lossless


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["model"]["vocab"].pop("!"),
        lambda spec: spec.update(normalizer={"type": "NFC"}),
        lambda spec: spec["added_tokens"][3].update(rstrip=True),
    ],
)
def test_a_tokenizer_that_may_lose_something_promises_nothing(make: Make, change: Callable[[Any], object]) -> None:
    def keep_ids(spec: dict[str, Any]) -> None:
        change(spec)
        spec["model"]["vocab"] = {piece: id for id, piece in enumerate(spec["model"]["vocab"])}
        for place, token in enumerate(spec["added_tokens"]):
            token["id"] = len(spec["model"]["vocab"]) + place

    assert not make("byte_level", keep_ids).capabilities.lossless_unicode


def test_other_families_promise_no_lossless_text(make: Make) -> None:
    for family in ("sentencepiece", "unigram", "word_level"):
        assert not make(family).capabilities.lossless_unicode


@settings(max_examples=100)
@given(st.integers(0, len(FILES["tokenizer.json"]) - 1), st.integers(0, 255))
def test_a_flipped_byte_gives_a_tokenizer_or_a_model_error(place: int, value: int) -> None:
    data = bytearray(FILES["tokenizer.json"])
    data[place] = value
    try:
        tokenizer = HuggingFaceTokenizer({**FILES, "tokenizer.json": bytes(data)})
        tokenizer.encode("hey <|im_end|>")
    except ModelError:
        return
    assert tokenizer.fingerprint


@pytest.mark.parametrize("family", ["byte_level", "sentencepiece", "unigram", "word_level", "wordpiece"])
def test_a_model_without_a_type_is_the_one_that_its_fields_tell(make: Make, family: str) -> None:
    named, old = make(family), make(family, lambda spec: spec["model"].pop("type"))
    assert old.model_type == named.model_type
    assert old.capabilities == named.capabilities
    assert old.fingerprint == named.fingerprint
    assert [*map(old.token_bytes, range(old.vocab_size))] == [*map(named.token_bytes, range(named.vocab_size))]
