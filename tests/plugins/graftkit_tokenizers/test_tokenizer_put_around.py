"""tokenizer.json and the flags of tokenizer_config.json say the same of what is put around a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit.tokenization.tokenizer_json import template
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

Make = Callable[..., HuggingFaceTokenizer]

BOS, EOS = "<|im_start|>", "<|im_end|>"
LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


def ids_of(make: Make) -> tuple[int, int]:
    tokens = make().special_tokens
    return tokens[BOS], tokens[EOS]


def processors(make: Make) -> dict[str, Any]:
    """Post-processors of many shapes: what each puts around a text is in its name."""
    bos, eos = ids_of(make)
    before, after = template(before={BOS: bos}), template(after={EOS: eos})
    return {
        "nothing": None,
        "nothing, in a level": LEVEL,
        "nothing, in a sequence": {"type": "Sequence", "processors": [LEVEL]},
        "bos": before,
        "bos in a sequence": {"type": "Sequence", "processors": [LEVEL, before]},
        "eos": after,
        "eos in a sequence": {"type": "Sequence", "processors": [LEVEL, after]},
        "bos and eos": template(before={BOS: bos}, after={EOS: eos}),
    }


NAMES = (
    "nothing",
    "nothing, in a level",
    "nothing, in a sequence",
    "bos",
    "bos in a sequence",
    "eos",
    "eos in a sequence",
    "bos and eos",
)


@pytest.mark.parametrize("flag", [True, False, None])
@pytest.mark.parametrize("name", NAMES)
def test_the_file_follows_the_flag_of_bos_and_the_flag_of_eos_the_file(
    make: Make, tmp_path: Path, name: str, flag: bool | None
) -> None:
    bos, eos = ids_of(make)
    config: dict[str, Any] = {} if flag is None else {"add_bos_token": flag, "add_eos_token": flag}

    def change(spec: dict[str, Any]) -> None:
        spec["post_processor"] = processors(make)[name]

    tokenizer = make("byte_level", change, bos_token=BOS, eos_token=EOS, **config)
    puts_bos, puts_eos = "bos" in name if flag is None else flag, "eos" in name
    assert tokenizer.adds_bos == puts_bos
    tokenizer.save(tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    flags = {key: written[key] for key in ("add_bos_token", "add_eos_token") if key in written}
    assert flags == ({} if flag is None else {"add_bos_token": puts_bos, "add_eos_token": puts_eos})
    expected = [bos] * puts_bos + tokenizer.encode("say") + [eos] * puts_eos
    assert Backend.from_file(str(tmp_path / "tokenizer.json")).encode("say").ids == expected
    assert AutoTokenizer.from_pretrained(tmp_path)("say")["input_ids"] == expected
    pair = Backend.from_file(str(tmp_path / "tokenizer.json")).encode("say", "so").ids
    assert pair[0] == expected[0] and pair.count(eos) == 2 * puts_eos
    again = HuggingFaceBackend().load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint and again.adds_bos == puts_bos


def test_a_flag_without_its_token_puts_nothing_and_is_not_kept(make: Make, tmp_path: Path) -> None:
    make("byte_level", bos_token=None, add_bos_token=True).save(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_bytes())["add_bos_token"] is False


def test_a_token_that_another_file_names_has_its_role(make: Make, tmp_path: Path) -> None:
    make("byte_level", bos_token=BOS, add_bos_token=True).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": config.pop("bos_token")}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = HuggingFaceBackend().load(tmp_path)
    (tmp_path / "again").mkdir()
    loaded.save(tmp_path / "again")
    again = HuggingFaceBackend().load(tmp_path / "again")
    assert loaded.adds_bos and again.adds_bos and again.fingerprint == loaded.fingerprint
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_bytes())["add_bos_token"] is True


def test_where_both_agree_the_files_are_kept_byte_by_byte(make: Make, tmp_path: Path) -> None:
    bos, _ = ids_of(make)

    def change(spec: dict[str, Any]) -> None:
        spec["post_processor"] = template(before={BOS: bos})

    plain = make("byte_level", change, bos_token=BOS)
    agreeing = make("byte_level", change, bos_token=BOS, add_bos_token=True)
    assert plain.fingerprint == agreeing.fingerprint
    agreeing.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_bytes())["post_processor"] == template(before={BOS: bos})
