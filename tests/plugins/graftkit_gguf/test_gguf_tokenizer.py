"""What a GGUF tokenizer becomes: the files, and what is refused. Parity with llama.cpp has a file of its own."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ModelError
from graftkit.interfaces.file_state import FileState
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit_gguf.header import GgufHeader
from graftkit_gguf.splitting import SPLITTINGS
from graftkit_gguf.tokenizer import read_tokenizer, save_tokenizer
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer

BYTES = list(byte_alphabet())
TOKENS = ["<s>", "</s>", "<call>", *BYTES, "ab", "abc", "Ġa", "Ġab", "<unused>"]
MERGES = ["a b", "ab c", "Ġ a", "Ġa b"]
TYPES = [3, 3, 4, *[1] * 256, 1, 1, 1, 1, 5]


def header(**changes: Any) -> GgufHeader:
    values: dict[str, Any] = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": TOKENS,
        "token_type": TYPES,
        "merges": MERGES,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    metadata: dict[str, Any] = {"llama.context_length": 512, "tokenizer.chat_template": "{{ messages }}\n"}
    for name, value in (values | changes).items():
        integers = name == "token_type" and isinstance(value, list)
        metadata[f"tokenizer.ggml.{name}"] = array("i", value) if integers else value
    kept = {name: value for name, value in metadata.items() if value is not None}
    return GgufHeader(Path("tiny.gguf"), 3, kept, {}, FileState(0, 0, 0))


def ids(header_: GgufHeader, text: str, folder: Path) -> list[int]:
    save_tokenizer(header_, folder)
    loaded: list[int] = AutoTokenizer.from_pretrained(folder)(text).input_ids
    return loaded


def test_the_map_of_bytes_is_that_of_tokenizers() -> None:
    assert sorted(BYTES) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert [BYTES[byte] for byte in b"a \n\x00\xff\xad"] == ["a", "Ġ", "Ċ", "Ā", "ÿ", "Ń"]


def test_text_is_merged_in_the_order_of_the_merges() -> None:
    tokenizer = Tokenizer.from_str(json.dumps(read_tokenizer(header()).to_json()))
    assert tokenizer.encode("abc abd ax").tokens == ["abc", "Ġ", "ab", "d", "Ġa", "x"]
    assert tokenizer.encode("</s>x<call>").ids == [1, 3 + ord("x"), 2]


def test_control_tokens_are_special_and_user_defined_ones_are_not() -> None:
    tokenizer = Tokenizer.from_str(json.dumps(read_tokenizer(header()).to_json()))
    added = tokenizer.get_added_tokens_decoder()
    assert {id_: token.special for id_, token in added.items()} == {0: True, 1: True, 2: False}
    tokenizer.encode_special_tokens = True
    assert 1 not in tokenizer.encode("</s>").ids
    assert tokenizer.encode("<call>").ids == [2]


def test_an_unused_token_never_comes_out_of_a_text(tmp_path: Path) -> None:
    assert len(TOKENS) - 1 not in ids(header(), "<unused>", tmp_path)


def test_a_token_with_a_role_is_special_whatever_its_type(tmp_path: Path) -> None:
    read = read_tokenizer(header(eos_token_id=2, unknown_token_id=len(TOKENS) - 1))
    assert {token["content"]: token["special"] for token in read.to_json()["added_tokens"]} == {
        "<s>": True,
        "</s>": True,
        "<call>": True,
        "<unused>": True,
    }
    assert read.roles == {"bos_token": "<s>", "eos_token": "<call>", "unk_token": "<unused>"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [259]),
        ({"add_bos_token": False}, [259]),
        ({"add_bos_token": True}, [0, 259]),
        ({"add_eos_token": True}, [259, 1]),
        ({"add_bos_token": True, "add_eos_token": True}, [0, 259, 1]),
        ({"pre": "llama-bpe"}, [0, 259]),
        ({"pre": "llama-bpe", "add_bos_token": False}, [259]),
        ({"pre": "llama-bpe", "bos_token_id": None}, [259]),
    ],
)
def test_a_text_starts_and_ends_as_the_file_says(tmp_path: Path, changes: dict[str, Any], expected: list[int]) -> None:
    assert ids(header(**changes), "ab", tmp_path) == expected
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("ab").ids == expected
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["add_bos_token"] == (expected[0] == 0)


def test_a_missing_byte_keeps_its_neighbours_apart(tmp_path: Path) -> None:
    tokens = [token for token in TOKENS if token != BYTES[4]]
    loaded = header(tokens=tokens, token_type=None, pre="gpt-2", merges=[*MERGES, "! !"])
    with pytest.raises(ModelError, match="element 4 does not join"):
        read_tokenizer(loaded)
    tokens.append("!!")
    found = ids(header(tokens=tokens, token_type=None, pre="gpt-2", merges=[*MERGES, "! !"]), "!!\4!\4", tmp_path)
    assert [tokens[id_] for id_ in found] == ["!!", "!"]


def test_of_two_merges_alike_the_first_counts() -> None:
    assert read_tokenizer(header(merges=[*MERGES, "a b"])).merges == read_tokenizer(header()).merges


def test_a_merge_may_start_with_a_space_of_its_own(tmp_path: Path) -> None:
    assert read_tokenizer(header(tokens=[*TOKENS, " ", " a"], token_type=None, merges=["  a"])).merges == [(" ", "a")]


def test_saving_writes_the_same_bytes_every_time(tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save_tokenizer(header(), tmp_path / name)
        written.append({file.name: file.read_bytes() for file in sorted((tmp_path / name).iterdir())})
    assert written[0] == written[1]
    assert list(written[0]) == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert written[0]["chat_template.jinja"] == b"{{ messages }}\n"


def test_the_configuration_says_what_transformers_reads(tmp_path: Path) -> None:
    assert read_tokenizer(header(padding_token_id=1)).config() == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }


REFUSED: dict[str, dict[str, Any]] = {
    "has no tokenizer": {"model": None},
    "of the kind 'rwkv'": {"model": "rwkv"},
    "splits text as 'kimi-k2'": {"pre": "kimi-k2"},
    "splits text as 'default'": {"pre": None},
    "tokenizer.ggml.pre is 7, not a string": {"pre": 7},
    "no tokenizer.ggml.tokens": {"tokens": None},
    "tokenizer.ggml.tokens is 'x', not an array of strings": {"tokens": "x"},
    "element 3 is empty or occurs twice": {"tokens": [*TOKENS[:3], "", *TOKENS[4:]]},
    "element 0 is empty or occurs twice": {"tokens": [*TOKENS[:5], "<s>", *TOKENS[6:]]},
    "element 2 of tokenizer.ggml.tokens is not UTF-8: '\\udcff'": {"tokens": ["<s>", "</s>", "\udcff"]},
    "tokenizer.ggml.token_type is an array of 2, but there are 264 tokens": {"token_type": [1, 1]},
    "tokenizer.ggml.token_type is 'x', not an array of whole numbers": {"token_type": "x"},
    "no tokenizer.ggml.merges": {"merges": None},
    "element 1 does not join tokens into one": {"merges": ["a b", "a x"]},
    "element 0 does not join tokens into one": {"merges": ["ab"]},
    "bos_token_id is 264, but there are 264 tokens": {"bos_token_id": 264},
    "eos_token_id is -1, not a whole number": {"eos_token_id": -1},
    "add_bos_token is 1, not a boolean": {"add_bos_token": 1},
    "add_bos_token is True, but tokenizer.ggml.bos_token_id is missing": {
        "add_bos_token": True,
        "bos_token_id": None,
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_supported_is_refused_by_name(message: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_tokenizer(header(**REFUSED[message]))
    assert message in caught.value.message
    assert caught.value.where == "tiny.gguf"
    assert caught.value.hint


def test_the_refusal_of_a_splitting_lists_the_supported_ones() -> None:
    with pytest.raises(ModelError) as caught:
        read_tokenizer(header(pre="kimi-k2"))
    assert all(name in caught.value.hint for name in SPLITTINGS)


def test_a_template_that_is_no_utf8_is_refused() -> None:
    broken = header()
    broken.metadata["tokenizer.chat_template"] = "\udcff"  # type: ignore[index]
    with pytest.raises(ModelError, match=r"chat_template is '.*', not a string in UTF-8"):
        read_tokenizer(broken)
