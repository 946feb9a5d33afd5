"""A tokenizer.json of a stranger encodes within bounds, and always alike, or is refused."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.errors import ExportError, ModelError
from graftkit.exporting.peft_folder import load_adapter
from graftkit.interfaces.patterns import repeats_nest
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN, MOST_IDS, MOST_MERGES, MOST_PIECES
from graftkit.testing import tiny_tokenizer_files
from graftkit.tokenization.bounds import check_bounds
from graftkit.tokenization.splitting import PATTERNS
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer

from hostile.limits import Outcome, measure

SPEC: dict[str, Any] = json.loads(tiny_tokenizer_files()["tokenizer.json"])


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def _split(pattern: str) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


DOUBLE = _replace({"String": "a"}, "aa")
CHANGES: dict[str, dict[str, Any]] = {
    "replacements that double": {"normalizer": _sequence(*[DOUBLE] * 60)},
    "sequences in sequences": {"normalizer": _sequence(*[_sequence(*[DOUBLE] * 8)] * 8)},
    "a long replacement": {"normalizer": _replace({"String": "a"}, "b" * 10_000_000)},
    "a replacement of nothing": {"normalizer": _replace({"Regex": ""}, "b" * 100_000)},
    "a long text before": {"normalizer": {"type": "Prepend", "prepend": "a" * 10_000_000}},
    "many steps": {"normalizer": _sequence(*[{"type": "NFC"}] * 100_000)},
    "many sequences": {"normalizer": _sequence(*[_sequence({"type": "NFC"})] * 100_000)},
    "a repeat of a repeat": {"pre_tokenizer": _split("(a+)+$")},
    "a repeat of alternatives": {"pre_tokenizer": _split("(?:a|a)*$")},
    "a repeat of a repeat in a normalizer": {"normalizer": _replace({"Regex": "(?:a*)*b"}, "c")},
    "a broken pattern": {"pre_tokenizer": _split("(a")},
    "replacements without a type": {
        "normalizer": {"normalizers": [{k: v for k, v in DOUBLE.items() if k != "type"}] * 60}
    },
    "replacements with a field to no purpose": {"normalizer": _sequence(*[{**DOUBLE, "normalizers": []}] * 60)},
    "a pattern beside a field to no purpose": {
        "pre_tokenizer": {**_split("(a+)+$")["pretokenizers"][0], "decoders": []}
    },
    "a model of lists": {"model": {"type": "BPE", "vocab": {}, "merges": [[]] * 3_000_000}},
}
_CODE = """
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from pathlib import Path

def case(path):
    tokenizer = HuggingFaceTokenizer({"tokenizer.json": Path(path).read_bytes()})
    return len(tokenizer.encode("a" * 60 + "b" * 1000 + "a" * 60))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("tokenizers")
    paths = {name: folder / f"{number}.json" for number, name in enumerate(CHANGES)}
    for name, path in paths.items():
        path.write_text(json.dumps({**SPEC, **CHANGES[name]}))
    return measure(_CODE, {name: str(path) for name, path in paths.items()})


@pytest.mark.parametrize("name", CHANGES)
def test_it_is_refused_soon(name: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.error == "ModelError", outcome
    outcome.assert_within_limits()
    assert len(outcome.message) < 4000


@pytest.mark.parametrize("dropout", [0.1, 1.0, 1, "0.1"])
def test_a_tokenizer_that_encodes_at_random_is_refused(dropout: object) -> None:
    spec = copy.deepcopy(SPEC)
    spec["model"]["dropout"] = dropout
    with pytest.raises(ModelError, match="dropout") as caught:
        HuggingFaceTokenizer({"tokenizer.json": json.dumps(spec).encode()})
    assert "null" in caught.value.hint


@pytest.mark.parametrize("dropout", [None, 0.0, 0])
def test_no_dropout_is_none(dropout: object) -> None:
    spec = copy.deepcopy(SPEC)
    spec["model"]["dropout"] = dropout
    ids = HuggingFaceTokenizer({"tokenizer.json": json.dumps(spec).encode()}).encode("words")
    assert ids == HuggingFaceTokenizer(tiny_tokenizer_files()).encode("words")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(ModelError, match="larger than 64 MB"):
        HuggingFaceBackend().load(tmp_path)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_patterns_in_use_are_none_that_nest(name: str) -> None:
    assert not repeats_nest(PATTERNS[name])


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+", r"((a*)b?)*", r"(?:a|a)*", r"(\w+\s?)*$", r"(?=(a+))(?:(a*)b)+", r"(a{2,})+", r"([^)]+)*", r"(x(y+)z)+"],
)
def test_repeats_of_repeats_are_seen(pattern: str) -> None:
    assert repeats_nest(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?>a+)+",
        r"(a+)?",
        r"[(a+)+]+",
        r"\(a+\)+",
        r"(ab)+",
        r"a+b+",
        r"(?:a|b)c+",
        r" {2,}",
        r"(a+){1,3}",
        r"\p{L}+|\s+",
    ],
)
def test_others_are_not(pattern: str) -> None:
    assert not repeats_nest(pattern)


@pytest.mark.parametrize(
    "config",
    [{"target_modules": r"(a+)+$"}, {"exclude_modules": r"(?:.|a)*x"}, {"rank_pattern": {r"(\w+)*x": 2}}],
    ids=["targets", "excluded", "ranks"],
)
def test_patterns_of_an_adapter_are_looked_at_before_peft(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    save_file({"base_model.model.layer.lora_A.weight": torch.zeros(2, 8)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ExportError, match="could take forever"):
        load_adapter(None, tmp_path)  # type: ignore[arg-type]


def test_a_table_that_claims_more_bytes_than_it_has_takes_no_memory(tmp_path: Path) -> None:
    """The library would ask for eight gigabytes at once, which ends the process."""
    spec = {"type": "Precompiled", "precompiled_charsmap": "AAAA////"}
    with pytest.raises(ModelError, match=r"its trie has 4,278,190,080 bytes, of 2"):
        check_bounds({"normalizer": {"type": "Sequence", "normalizers": [spec]}}, str(tmp_path))


def _template(pieces: list[str], ids: int = 1) -> dict[str, Any]:
    made = {"A": {"Sequence": {"id": "A", "type_id": 0}}, "s": {"SpecialToken": {"id": "<s>", "type_id": 0}}}
    special = {"<s>": {"id": "<s>", "ids": [1] * ids, "tokens": ["<s>"] * ids}}
    return {
        "type": "TemplateProcessing",
        "single": [made[piece] for piece in pieces],
        "pair": [],
        "special_tokens": special,
    }


@pytest.mark.parametrize(
    "steps",
    [
        [_template(["s"] * 300 + ["A"], 10_000)],  # a file of 100 kB took 500 MB for each text
        [_template(["A"] * 100_000)],
        [_template(["A", "A", "s"])] * 60,
    ],
    ids=["tokens", "the text", "the text twice, again and again"],
)
def test_a_template_that_multiplies_a_text_is_refused(steps: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match="the post_processor of tokenizer.json puts over 1,000 tokens"):
        check_bounds({**SPEC, "post_processor": {"type": "Sequence", "processors": steps}}, "here")


def test_templates_in_use_are_read() -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    steps = [byte_level, _template(["s", "A", "s"], 5)]
    check_bounds({**SPEC, "post_processor": {"type": "Sequence", "processors": steps}}, "here")


def test_very_many_added_tokens_are_refused() -> None:
    """300,000 special ones took 12 seconds and a gigabyte; speech models have 65,000."""
    with pytest.raises(ModelError, match="100,001 added tokens"):
        check_bounds({**SPEC, "added_tokens": [{}] * 100_001}, "here")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("added_tokens", [{"id": 1, "content": "a" * (LONGEST_TOKEN + 1)}], "a token of 8,193 characters"),
        ("added_tokens", [{"id": n, "content": "a" * 8_000} for n in range(1001)], "8,008,000 characters together"),
        ("decoder", {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 11}, "over 10 times as long"),
        (
            "normalizer",
            {"type": "Precompiled", "precompiled_charsmap": "AAAAAGFh" + "YWFh" * 28},
            "by 86 bytes; 64 are allowed",
        ),
    ],
)
def test_what_would_make_answers_very_long_is_refused(part: str, value: Any, message: str) -> None:
    """A model that repeats a token of four million characters gave 256 MB within 64 tokens."""
    with pytest.raises(ModelError, match=message):
        check_bounds({**SPEC, part: value}, "here")


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("pre_tokenizer", ["Split", {"Regex": "(a+)+$"}, "Isolated", False]),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [["Split", {"Regex": "(a+)+$"}, "Isolated", False]]}),
        ("normalizer", [{"Regex": "(a+)+$"}, "b"]),
        ("decoder", {"type": "Sequence", "decoders": [[".", 1 << 32, 1 << 32], {"type": "Fuse"}]}),
    ],
)
def test_a_step_that_is_a_list_of_its_values_is_refused(part: str, step: Any) -> None:
    """The library reads it, and no pattern in it would be judged."""
    Tokenizer.from_str(json.dumps({**json.loads(tiny_tokenizer_files()["tokenizer.json"]), part: step}))
    with pytest.raises(ModelError, match=f"a step in the {part} of tokenizer.json is no object"):
        check_bounds({**SPEC, part: step}, "here")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"type": "BPE", "vocab": {f"w{number}": number for number in range(MOST_PIECES + 1)}, "merges": []},
            f"{MOST_PIECES + 1:,} tokens",
        ),
        ({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]] * (MOST_PIECES + 1)}, f"{MOST_PIECES + 1:,} tokens"),
        ({"type": "Unigram", "unk_id": 0, "vocab": [["a" * 150, 0.0]] * 200_000}, "30,000,000 characters together"),
        (
            {"type": "BPE", "vocab": {"a" * (LONGEST_TOKEN + 1): 0}, "merges": []},
            f"a token of {LONGEST_TOKEN + 1:,} characters",
        ),
        ({"type": "BPE", "vocab": {"a": MOST_IDS}, "merges": []}, f"the id {MOST_IDS:,}; ids up to {MOST_IDS - 1:,}"),
        (
            {"type": "Unigram", "unk_id": 0, "vocab": [["a" * 50 + f"{n:06}" * 6, 0.0] for n in range(60_000)]},
            "different beginnings; 1,200,000 are read",
        ),
        (
            {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]] * (MOST_MERGES + 1)},
            f"{MOST_MERGES + 1:,} merges",
        ),
    ],
)
def test_more_pieces_than_any_model_has_are_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_bounds({**SPEC, "model": model}, "here")


def test_added_tokens_have_room_beside_the_largest_vocabulary_in_use() -> None:
    """Gemma 3's 262,144 with 65,536 more; each of these was given to the library by itself, which took minutes."""
    first = max(SPEC["model"]["vocab"].values()) + 1
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": first + number, "content": f"<{number}>", "special": number % 2 == 0, **flags}
        for number in range(65_536)
    ]
    check_bounds({**SPEC, "added_tokens": [{**added[-1], "id": 327_679}]}, "here")
    tokenizer = HuggingFaceTokenizer({"tokenizer.json": json.dumps({**SPEC, "added_tokens": added}).encode()})
    started = time.process_time()
    ids = tokenizer.encode("<0><1>")
    assert time.process_time() - started < 4
    assert ids[-1] == first + 1
    assert first not in ids
