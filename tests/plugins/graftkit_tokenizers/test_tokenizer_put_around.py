"""tokenizer.json and the flags of tokenizer_config.json say the same of what is put around a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ModelError
from graftkit.exporting.model_folder import save_tokenizer
from graftkit.tokenization.tokenizer_json import template
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing
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


def test_a_pair_is_laid_out_as_its_template_says(make: Make, tmp_path: Path) -> None:
    """Also where no token is of the letter `a`; one that has the second text first, or a text twice, is refused."""
    bos, eos = ids_of(make)

    def with_pair(pair: str, *, without_a: bool = False) -> HuggingFaceTokenizer:
        def change(spec: dict[str, Any]) -> None:
            names = [(BOS, bos), (EOS, eos)]
            made = TemplateProcessing(single=f"{BOS} $A {EOS}", pair=pair, special_tokens=names)
            spec["post_processor"] = json.loads(made.__getstate__())
            if without_a:
                spec["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": ""}

        return make("byte_level", change)

    for without_a in (False, True):
        tokenizer = with_pair(f"{BOS} $A {EOS}:1 $B:2 {EOS}:3", without_a=without_a)
        assert tokenizer.put_around == ([bos], [eos])
        assert tokenizer.pair_layout.of([7, 8], [9]) == ([bos, 7, 8, eos, 9, eos], [0, 0, 0, 1, 2, 3])
    for pair in (f"{BOS} $B {EOS} $A:1", f"{BOS} $A {EOS} $B $A {EOS}"):
        with pytest.raises(ModelError, match="the first one and then the second one, each once"):
            _ = with_pair(pair).pair_layout
        (tmp_path / "odd").mkdir(exist_ok=True)
        save_tokenizer(with_pair(pair), tmp_path / "odd", {"type_vocab_size": 4})


def test_transformers_tells_the_texts_of_a_pair_apart_where_the_model_does(make: Make, tmp_path: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["post_processor"] = template()

    tokenizer = make("byte_level", change)
    ids, types = tokenizer.pair_layout.of(tokenizer.encode("so"), tokenizer.encode("so"))
    for count in (0, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        save_tokenizer(tokenizer, folder, {"type_vocab_size": count})
        found = AutoTokenizer.from_pretrained(folder)("so", "so")
        assert found["input_ids"] == ids and found.get("token_type_ids") == (types if count else None)
        assert HuggingFaceBackend().load(folder).pair_layout.types == tokenizer.pair_layout.types
    named = make("byte_level", change, model_input_names=["input_ids", "attention_mask"])
    (tmp_path / "named").mkdir()
    save_tokenizer(named, tmp_path / "named", {"type_vocab_size": 2})
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "named")("so", "so")
    assert not any(named.pair_layout.of([7], [8])[1])
