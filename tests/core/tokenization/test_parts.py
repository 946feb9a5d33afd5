"""Parts of a tokenizer.json, compared with what the libraries that read them make of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit.tokenization.side_files import content_of
from graftkit.tokenization.splitting import PATTERNS, isolate, isolated_characters, pre_tokenizer, split
from graftkit.tokenization.text_search import TextSearch
from graftkit.tokenization.tokenizer_json import added_token, bpe_model, template, tokenizer_json
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.processors import TemplateProcessing

TOKENS = {"<s>": 0, "<bos2>": 1, "</s>": 2}


def test_the_byte_alphabet_is_gpt2s() -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert byte_alphabet() == {character: byte for byte, character in bytes_to_unicode().items()}
    assert [*byte_alphabet().values()] == [*range(256)]


@pytest.mark.parametrize(
    "before, after", [(["<s>"], []), ([], ["</s>"]), (["<s>"], ["</s>"]), (["<s>", "<bos2>"], ["</s>"])]
)
def test_a_template_is_the_librarys(before: list[str], after: list[str]) -> None:
    single, second = (
        " ".join([*(f"{t}:{n}" for t in before), f"${name}:{n}", *(f"{t}:{n}" for t in after)])
        for n, name in enumerate("AB")
    )
    used = [(token, TOKENS[token]) for token in (*before, *after)]
    theirs = TemplateProcessing(single=single, pair=f"{single} {second}", special_tokens=used)
    ours = template(before={t: TOKENS[t] for t in before}, after={t: TOKENS[t] for t in after})
    assert ours == json.loads(theirs.__getstate__())


def test_a_whole_tokenizer_json_is_read_as_it_is_written() -> None:
    added = [added_token(id, token) for token, id in TOKENS.items()]
    ids = {**TOKENS, "a": 3}
    parts = {"pre_tokenizer": pre_tokenizer(PATTERNS["gpt2"]), "post_processor": template(before={"<s>": 0})}
    spec = tokenizer_json(bpe_model(ids, []), added_tokens=added, **parts)
    library = Tokenizer.from_str(json.dumps(spec))
    assert json.loads(library.to_str()) == spec
    assert library.encode("a").ids == [0, 3]


@given(st.sets(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9))
def test_isolated_characters_are_pieces_of_their_own_and_are_found_again(characters: set[str]) -> None:
    part = isolate(characters)
    assert isolated_characters(part) == characters
    text = "".join(f"{character}qq" for character in sorted(characters - {"q"}))
    library = pre_tokenizers.Split(Regex(part["pattern"]["Regex"]), "isolated")
    expected = [piece for character in sorted(characters - {"q"}) for piece in (character, "qq")]
    if "q" not in characters:
        assert [piece for piece, _ in library.pre_tokenize_str(text)] == expected


@pytest.mark.parametrize("part", [split("[ab]"), {**isolate("a"), "invert": True}, {"type": "Digits"}, {}])
def test_another_pre_tokenizer_isolates_no_characters(part: dict[str, object]) -> None:
    assert isolated_characters(part) == set()


@pytest.mark.parametrize("token, text", [("a", "a"), ({"content": "a"}, "a"), ("", None), ({}, None), (1, None)])
def test_a_token_is_written_as_text_or_as_an_object(token: object, text: str | None) -> None:
    assert content_of(token) == text


def test_importing_the_modules_loads_neither_tokenizers_nor_torch() -> None:
    script = (
        "import sys, pkgutil, importlib, graftkit.tokenization as package\n"
        "names = [module.name for module in pkgutil.iter_modules(package.__path__)]\n"
        "[importlib.import_module(f'graftkit.tokenization.{name}') for name in names]\n"
        "print(len(names) > 8, [name for name in ('tokenizers', 'torch', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True []"


@given(st.lists(st.text("ab.é", max_size=3), max_size=8), st.text("ab.éx", max_size=30))
def test_texts_are_found_as_by_a_regular_expression_with_the_longest_first(texts: list[str], text: str) -> None:
    search, place, found = TextSearch(texts), 0, []
    while match := search.next(text, place):
        found.append(match)
        place = match[0] + len(match[1])
    longest_first = sorted({*texts} - {""}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) if longest_first else r"(?!)")
    assert found == [(match.start(), match[0]) for match in pattern.finditer(text)]
    for place in range(len(text) + 1):
        spans = [
            (start, each)
            for start in range(place)
            for each in longest_first
            if text.startswith(each, start) and start + len(each) > place
        ]
        assert search.across(text, place) == (spans[0][1] if spans else None)
