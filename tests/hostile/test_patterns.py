"""What a regular expression of a stranger may cost is judged before the library searches with it."""

from __future__ import annotations

import contextlib
import json
import time
import unicodedata
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ModelError, RequestError
from graftkit.interfaces.character_sets import Alphabet
from graftkit.interfaces.pattern_cost import PatternError, steps_at_most
from graftkit.interfaces.pattern_syntax import Characters, parse_pattern
from graftkit.interfaces.patterns import takes_forever
from graftkit.testing import tiny_tokenizer_files
from graftkit.tokenization.bounds import check_bounds
from graftkit.tokenization.splitting import PATTERNS
from graftkit_tokenizers.tokenizer_json.splitting import named
from tokenizers import Regex, pre_tokenizers

from hostile.limits import measure

LIMIT = 2e8
CASES = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
IN_USE = {
    **PATTERNS,
    "tiktoken gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "tiktoken cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    "llama.cpp llama 3": CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + MARKS + SPACE,
    "jais 2": CASES
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    + MARKS
    + r"\s*[\r\n]+|"
    + "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4))
    + r"|\s{1,2}(?!\S)|\s{1}",
    "qwen 3.5": rf"{CASES}|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACE}",
    "deepseek, letters": "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ𐐀-𐑏]+",
    "deepseek, marks": "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
    "deepseek, white space": r"\s+$",
    "deepseek, chinese": "[一-龥ࠀ-一가-\ud7ff]+",
    "deepseek 3": r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACE}",
    "falcon": r"[\p{P}\$\+<=>\^~\|`]+",
    "starcoder": GPT2,
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "tekken": rf"[^\r\n\p{{L}}\p{{N}}]?((?=[\p{{L}}])([^a-z]))*((?=[\p{{L}}])([^A-Z]))+|\p{{N}}|{MARKS}{SPACE}",
    "clip": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "aya, digits": r"\d{1,3}(?=(?:\d{3})*\b)",
    "superbpe": r"(?=(\d{3})+(?!\d))",
    "kimi": r"[\p{Han}]+|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{HAN}*{HAN}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{{N}}{{1,3}}|{MARKS}{SPACE}",
    "bailing": rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*|{SPACE}",
    "exaone": rf"(?i:'s|'t|'re)|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}|{SPACE}",
    "chameleon": "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    "spaces": " {2,}",
    "digits from the right": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    "sentencepiece": r"\A +|[ ▁]+\z",
    "phi": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+$",
}
SLOW = [
    r"(a+)+$",
    r"(x+x+)+y",
    r"((((x*)*)*)*)*y",
    r"(?:x|x|x)*y",
    r"(?:a|a)*$",
    r"(\w+\s?)*$",
    r"(?:x*y?)*z",
    r"(?:(?:a?)*b)*c",
    r"(?:a|aa)+b",
    r"([a-z]|\w)+!",
    r"(?i:a|A)+!",
    r"(?:\p{L}|\p{Lu})+!",
    r"(?=(?:x|x)*y)x",
    r"\s+\s+$",
    r".*.*x",
    r"a*a*(?!a)[^a]",
    r"\s*\s*\s*!",
    r" +(?= *!)",
    r"\w+\d+!",
    r"[a-z]+[m-z]+[^a-z]",
    r"(?:a{2,})+b",
    r"a?" * 30 + "a" * 30 + "b",
    r"(?:a?){30}a{30}b",
    r"\s{20,}\s{20,}!",
    r"(?m:.)*\n*\n*!",
    "|".join(rf"\s+{n}" for n in range(100, 200)),
    r"(a+)+?$",
    r"(?>(a+)+)$",
    r"(?:a+?)+?$",
    r"([^)]+)*!",
]
UNKNOWN = [
    r"(a)\1+",
    r"(?<x>a)\k<x>",
    r"(?<x>a|\g<x>b)c",
    r"(?~ab)",
    r"(a)?(?(1)b|c)",
    r"\X+\X+!",
    "(",
    "[a",
    ")",
    "*a",
    "(?:" * 500 + ")" * 500,
    r"(?<=(?:a|a){20})b",
    r"\p{L",
    "(?{x})",
]


@pytest.mark.parametrize("name", IN_USE)
def test_patterns_in_use_are_accepted_soon(name: str) -> None:
    begun = time.process_time()
    assert steps_at_most(IN_USE[name], 2000) <= LIMIT
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("pattern", SLOW)
def test_slow_patterns_are_seen(pattern: str) -> None:
    assert steps_at_most(pattern, 2000) > LIMIT


@pytest.mark.parametrize("pattern", UNKNOWN)
def test_what_cannot_be_judged_is_said(pattern: str) -> None:
    with pytest.raises(PatternError, match="can't be judged"):
        steps_at_most(pattern, 2000)


@pytest.mark.parametrize(
    "pattern",
    [
        "[" + "".join(map(chr, range(0x4E00, 0x9FFF, 2))) * 4 + "]+$",
        "|".join(chr(0x4E00 + n) + chr(0x5E00 + n) for n in range(4000)),
        "(?:" + "|".join(f"w{n}" for n in range(2000)) + ")+x",
        "(?:[a-z]{16}){16}" * 50,
        "(?:a|b?)*" * 200,
        "(?:|){30}" * 30,
        "[a-z]+" * 2000,
        "(?:" * 90 + "a" + ")*" * 90,
        "a{99999}" * 3000,
    ],
    ids=range(9),
)
def test_large_patterns_are_judged_soon(pattern: str) -> None:
    begun = time.process_time()
    with contextlib.suppress(PatternError):
        steps_at_most(pattern, 2000)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("pattern", "degree"),
    [
        (r"\p{L}+", 1),
        (r"\p{L}+|\s+", 1),
        (r"\s+$", 2),
        (r"\s+\s+$", 3),
        (r"yx*z", 1),
        (r"[a-m]+[n-z]+!", 2),
        (r"\p{L}+\p{N}+!", 2),
        (r"\S+\s+!", 2),
        (r"(?:ab)+c", 2),
        (r"x+yx+z", 2),
        (r"(?<=a)b*", 1),
        (r"a+(?!a)b*c", 2),
    ],
)
def test_steps_grow_as_they_should(pattern: str, degree: int) -> None:
    assert steps_at_most(pattern, 2000) == pytest.approx(steps_at_most(pattern, 1000) * 2**degree)


_RANDOM = """
import random, time
from graftkit.interfaces.pattern_cost import PatternError, steps_at_most
from graftkit_tokenizers.tokenizer_json.splitting import named
from tokenizers import Regex, pre_tokenizers

ATOMS = ("a", "b", "a", "[ab]", ".", "(?!a)", "(?=b)", "$", "c", "[^a]", r"\\w")
REPEATS = ("*", "+", "?", "*", "+", "{2,}", "{1,3}", "{0,20}", "*?", "+?", "++", "{2}")

def pattern(draw, level=0):
    kind = draw.random()
    if level > 3 or kind < 0.35:
        return draw.choice(ATOMS)
    if kind < 0.65:
        return "".join(pattern(draw, level + 1) for _ in range(draw.randint(1, 4)))
    if kind < 0.75:
        return "(?:" + "|".join(pattern(draw, level + 1) for _ in range(draw.randint(2, 3))) + ")"
    if kind < 0.8:
        return draw.choice(("(?=", "(?!", "(?>")) + pattern(draw, level + 1) + ")"
    return "(?:" + pattern(draw, level + 1) + ")" + draw.choice(REPEATS)

def case(seed):
    draw, judged, slowest = random.Random(seed), 0, 0.0
    texts = ["a" * 2000, "a" * 2000 + "c", "ab" * 1000, "b" * 2000 + "a", "aab" * 700 + "c",
             "c" + "a" * 999 + "b" * 999,
             "".join(draw.choice("ab") for _ in range(2000))]
    while judged < 150:
        found = pattern(draw)
        try:
            if steps_at_most(found, 2000) > 2e8:
                continue
        except PatternError:
            continue
        try:
            split = pre_tokenizers.Split(Regex(found), "isolated")
        except Exception:  # the library refuses it
            continue
        judged += 1
        for text in texts:
            begun = time.process_time()
            split.pre_tokenize_str(text)  # a panic, which is what a limit of the library's ends in, would be seen
            slowest = max(slowest, time.process_time() - begun)
    return slowest
"""


def test_whatever_is_accepted_is_searched_soon() -> None:
    for outcome in measure(_RANDOM, [1, 2]).values():
        assert outcome.error == "" and float(outcome.message) < 4, outcome


@pytest.mark.parametrize(
    "pattern",
    [
        r"\s",
        r"\S",
        r"\d",
        r"\D",
        r"\w",
        r"\W",
        r"\h",
        r".",
        r"[^a-z]",
        r"\p{L}",
        r"\P{L}",
        r"\p{Lu}",
        r"\p{^M}",
        r"(?i:k)",
        r"(?i:[a-z])",
        r"(?i:ſ)",
        r"[\w&&[^\d]]",
        r"[[:alpha:]]",
        r"\p{Han}",
        r"[^\s\p{P}]",
        r"[\x{41}-\x{5a}]",
    ],
)
def test_a_class_may_hold_whatever_the_library_finds(pattern: str) -> None:
    found = parse_pattern(pattern)
    assert isinstance(found, Characters)
    alphabet = Alphabet([found])
    codes = [code for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    pieces = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str("".join(map(chr, codes)))
    matched = set(codes) - {ord(sign) for piece, _ in pieces for sign in piece}
    assert matched
    wrong = [hex(code) for code in sorted(matched) if not alphabet.may(found) & _letter(alphabet, code)]
    assert not wrong


def _letter(alphabet: Alphabet, code: int) -> int:
    first = alphabet._edges[bisect_right(alphabet._edges, code) - 1]
    groups: list[Any] = alphabet._groups
    category = unicodedata.category(chr(code))
    known = [number for number, (at, name) in enumerate(groups) if at == first and category in ("Cn", name)]
    plain = [number for number, (at, name) in enumerate(groups) if at == first and not name]
    return sum(1 << number for number in known or plain)


def test_patterns_are_judged_together(tmp_path: Path) -> None:
    """Fifty steps that take two seconds each are too many."""
    spec: dict[str, Any] = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    step = {"type": "Split", "pattern": {"Regex": r"\s+$"}, "behavior": "Isolated", "invert": False}
    check_bounds({**spec, "pre_tokenizer": step}, str(tmp_path))
    with pytest.raises(ModelError, match="could take forever"):
        check_bounds({**spec, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [step] * 60}}, str(tmp_path))


def test_what_a_normalizer_makes_longer_is_searched_in_full(tmp_path: Path) -> None:
    spec: dict[str, Any] = json.loads(tiny_tokenizer_files()["tokenizer.json"])
    step = {"type": "Split", "pattern": {"Regex": r"\s+$"}, "behavior": "Isolated", "invert": False}
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": " " * 100}
    with pytest.raises(ModelError, match="could take forever"):
        check_bounds({**spec, "normalizer": normalizer, "pre_tokenizer": step}, str(tmp_path))


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"a*a*(?!a)[^a]", r"(a)\1+"])
def test_a_recipe_or_vocabulary_names_no_slow_pattern(pattern: str) -> None:
    with pytest.raises(RequestError, match="could take forever"):
        named(pattern)


@pytest.mark.parametrize("pattern", [".?" * 40 + "Z", "a?" * 4900, "(?:.|.)" * 26 + "Z", r"(a?)(a?)\1" * 10])
def test_optional_parts_in_a_row_are_refused_for_paths(pattern: str) -> None:
    """Each doubles the ways to read a path: forty took Python minutes for a single layer."""
    assert takes_forever(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r".*vision.*layers.*attn.*proj.*",
        r".*layers\.(?:1[0-9]|2[0-9]|3[01])\.(?:self_attn|mlp)\.[a-z_]+",
        r"(?:.*?(?:language|text).*?(?:self_attn|attn|mlp|ffn).*?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj).*?)",
        r"^(?:(?!patch_embed)(?!norm).)*$",
    ],
)
def test_patterns_of_layers_that_people_write_are_taken(pattern: str) -> None:
    assert not takes_forever(pattern)
