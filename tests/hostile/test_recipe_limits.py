"""A recipe of a stranger is read or refused within bounds."""

from __future__ import annotations

import pytest

from hostile.limits import Outcome, measure

MB = (1 << 20) - 100

RECIPES = {
    "dotted keys.toml": "a" + ".a" * (MB // 2 - 8) + " = 1\n",
    "dotted keys of a table.toml": "[a" + ".a" * (MB // 2 - 8) + "]\n",
    "many dotted keys.toml": "".join(f"a{'.b' * 900}.c{n} = 1\n" for n in range(MB // 1820)),
    "many keys of fewer dots.toml": "".join(f"a{n}{'.b' * 190}.c{n} = 1\n" for n in range(MB // 400)),
    "dotted keys after a text.toml": "x = [" + "'''\n\"'''" + ", {a" + ".a" * (MB // 2 - 20) + " = 1}, '\"']\n",
    "many tables.toml": "".join(f"[a{n}]\n" for n in range(MB // 10)),
    "many tables of tables.toml": "[[a]]\n" * (MB // 6),
    "many deep tables.toml": "".join(f"[a{'.b' * 18}.c{n}]\n" for n in range(MB // 50)),
    "nested lists.toml": "a = " + "[" * (MB // 2 - 9) + "]" * (MB // 2 - 9),
    "nested tables.toml": "a = " + "{a=" * (MB // 4 - 9) + "1" + "}" * (MB // 4 - 9),
    "many values.toml": "a = [" + "[]," * (MB // 3 - 9) + "]",
    "a long number.toml": "a = " + "9" * (MB - 9),
    "a long text.toml": 'a = "' + "\\u00e9" * (MB // 6 - 9) + '"',
    "comments.toml": "#" * MB,
    "quotes.toml": "a = '''" + "''" + "\n''" * (MB // 3 - 9),
    "a comment of escaped quotes.toml": "a = 1 # " + "." * 300 + '"' + '\\"' * (MB // 2 - 200),
    "a bracket before spaces.toml": "a = '''\n[" + " " * (MB - 20) + "\n'''\n",
    "brackets before spaces.toml": "a = '''\n" + ("[" + " " * 2000 + "\n") * 500 + "'''\n",
    "dates.toml": "a = [" + "1979-05-27," * (MB // 11 - 9) + "]",
    "dates from recent days.toml": "a = [" + "1979-05-27T07:32:00.999999-07:00," * (MB // 33 - 9) + "]",
    "keys in quotes.toml": "".join(f'"{n}".a = 1\n' for n in range(MB // 16)),
    "a key of many characters.toml": "a" * (MB - 9) + " = 1",
    "nested lists.yaml": "a: " + "[" * (MB - 9),
    "nested mappings.yaml": "a: " + "{a: " * (MB // 4 - 9),
    "indented.yaml": "".join(" " * n + "a:\n" for n in range(1400)),
    "many keys.yaml": "".join(f"a{n}: 1\n" for n in range(MB // 11)),
    "many values.yaml": "a: [" + "[]," * (MB // 3 - 9) + "]",
    "many words.yaml": "a: [" + "b," * (MB // 2 - 9) + "]",
    "aliases.yaml": "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9)),
    "a long number.yaml": "a: " + "9" * (MB - 9),
    "a long scalar.yaml": "a: " + "b " * (MB // 2 - 9),
    "a long text.yaml": 'a: "' + "\\x41" * (MB // 4 - 9) + '"',
    "question marks.yaml": "? " * (MB // 2 - 9),
    "dashes.yaml": "- " * (MB // 2 - 9),
    "colons.yaml": "a: " * (MB // 3 - 9),
    "lines.yaml": "\n" * MB,
    "directives.yaml": "%YAML 1.1\n---\n" * (MB // 14),
    "tags.yaml": "%TAG ! x\n" * (MB // 9),
    "a block.yaml": "a: |\n" + "  b\n" * (MB // 4 - 9),
    "a folded block.yaml": "a: >\n" + "  b\n\n" * (MB // 5 - 9),
}
_CODE = """
from pathlib import Path
from graftkit.recipe.document import read_document

def case(path):
    read_document(Path(path))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in RECIPES.items():
        (folder / name).write_text(text)
    return measure(_CODE, {name: str(folder / name) for name in RECIPES})


@pytest.mark.parametrize("name", RECIPES)
def test_it_ends_soon_and_stays_small(name: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.error in ("", "RecipeError"), outcome
    outcome.assert_within_limits()
    assert len(outcome.message) < 4000
