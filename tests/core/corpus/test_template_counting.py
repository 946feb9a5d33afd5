"""A template that counts what it does writes what it writes in `transformers`, and has room for long conversations."""

from __future__ import annotations

import pytest
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.template_costs import FILTERS, METHODS, TESTS
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

MESSAGES = [
    {"role": "system", "content": " Be <b>brief</b> & kind.\n\tAlways. "},
    {"role": "user", "content": "Grüße, 10% of 3.5? ßtraße"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nok é 日本"},
]
TEXT = "messages[0].content"
NUMBERS = "[3, 1, 2]"
TURNS = "messages"

BY_FILTER = {
    "abs": "{{ -3 | abs }}{{ (1.5 - 3) | abs }}",
    "attr": "{{ ('a' | attr('upper'))() }}{{ messages | attr('nothing') is defined }}",
    "batch": "{{ [1, 2, 3] | batch(2, 'x') | list }}",
    "capitalize": "{{ 'éAb' | capitalize }}",
    "center": "[{{ 'a' | center(9) }}]",
    "count": "{{ messages | count }}",
    "d": "{{ nothing | d('x') }}",
    "default": "{{ '' | default('x', true) }}",
    "dictsort": "{{ {'b': 1, 'A': 2} | dictsort }}{{ {'b': 1, 'A': 2} | dictsort(true, 'value', true) }}",
    "e": "{{ messages[0].content | e }}",
    "escape": "{{ '<' | escape + '>' }}",
    "filesizeformat": "{{ 123456 | filesizeformat }}",
    "first": "{{ messages | map(attribute='role') | first }}",
    "float": "{{ '1.5' | float + 1 }}{{ 'x' | float }}",
    "forceescape": "{{ '&' | safe | forceescape }}",
    "format": "{{ '%s, %5.2f%% of %-4d|' | format('a', 2.5, 100000) }}{{ '%(a)s' | format(a=1) }}",
    "groupby": "{% for g in messages | groupby('role') %}{{ g.grouper }}={{ g.list | length }};{% endfor %}",
    "indent": "{{ messages[0].content | indent(3, true) }}{{ 'a\n\nb' | indent('> ', blank=true) }}",
    "int": "{{ '12' | int + 1 }}{{ 'ff' | int(base=16) }}{{ 3.9 | int }}{{ 'x' | int(7) }}",
    "items": "{% for k, v in messages[0] | items %}{{ k }}:{{ v }};{% endfor %}",
    "join": "{{ messages | map(attribute='role') | join(', ') }}{{ messages | join('-', attribute='role') }}",
    "last": "{{ messages | last }}",
    "length": "{{ messages | length }}{{ 'abc' | length }}",
    "list": "{{ 'aé' | list }}{{ range(3) | list }}",
    "lower": "{{ 'ÀB' | lower }}",
    "map": "{{ ['a'] | map('upper') | list }}{{ [{}] | map(attribute='a', default=1) | list }}",
    "max": "{{ [1, 3, 2] | max }}{{ messages | max(attribute='role') }}",
    "min": "{{ ['b', 'A'] | min }}",
    "reject": "{{ [1, 2] | reject('odd') | list }}",
    "rejectattr": "{{ messages | rejectattr('role', 'equalto', 'system') | list | length }}",
    "replace": "{{ 'banana' | replace('a', 'o', 2) }}{{ 'ab' | replace('', '-') }}",
    "reverse": "{{ 'abc' | reverse }}{{ messages | reverse | map(attribute='role') | list }}",
    "round": "{{ 2.567 | round(2) }}{{ 2.1 | round(0, 'ceil') }}",
    "safe": "{{ '<' | safe }}{{ ('<' | safe) + '>' }}",
    "select": "{{ [0, 1, none, 'a'] | select | list }}{{ [1, 2, 3] | select('gt', 1) | list }}",
    "selectattr": "{{ (messages | selectattr('role', 'in', ['user', 'system']) | list)[1].content }}",
    "slice": "{{ [1, 2, 3, 4] | slice(3, 'x') | list }}",
    "sort": "{{ ['b', 'A', 'c'] | sort(true) }}{{ (messages | sort(attribute='role,content') | first).role }}",
    "string": "{{ [1, 'a'] | string }}",
    "sum": "{{ [1, 2.5] | sum }}{{ [{'a': 2}] | sum('a', 1) }}",
    "title": "{{ 'hello wor-ld (x' | title }}",
    "tojson": "{{ messages | tojson }}{{ {'a': [1, {}]} | tojson(indent=2) }}",
    "trim": "[{{ messages[0].content | trim }}]{{ 'xax' | trim('x') }}",
    "truncate": "{{ messages[0].content | truncate(9) }}{{ 'abcdefghij' | truncate(5, true, '.', 0) }}",
    "unique": "{{ ['a', 'A', 'b'] | unique | list }}{{ messages | unique(attribute='role') | list | length }}",
    "upper": "{{ messages[1].content | upper }}",
    "urlencode": "{{ 'a b/é?' | urlencode }}{{ {'a': 'b c'} | urlencode }}",
    "wordcount": "{{ messages[0].content | wordcount }}",
}
BY_METHOD = {
    "str": {
        "capitalize": "'éAb'.capitalize()",
        "casefold": "'Straße'.casefold()",
        "center": "'a'.center(5, '*')",
        "count": "'banana'.count('an')",
        "endswith": "'abc'.endswith(('b', 'c'))",
        "expandtabs": "'a\tb'.expandtabs(4)",
        "find": "'abc'.find('c', 1)",
        "index": "'abc'.index('b')",
        "join": "'-'.join(['a', 'b'])",
        "ljust": "'a'.ljust(3) ~ '|'",
        "lower": "'AÉ'.lower()",
        "lstrip": "'  a'.lstrip()",
        "partition": "'a=b=c'.partition('=')",
        "removeprefix": "'abc'.removeprefix('a')",
        "removesuffix": "'abc'.removesuffix('c')",
        "replace": "'banana'.replace('a', 'oo', 1)",
        "rfind": "'banana'.rfind('an')",
        "rindex": "'banana'.rindex('a')",
        "rjust": "'a'.rjust(3, '.')",
        "rpartition": "'a=b=c'.rpartition('=')",
        "rsplit": "'a b c'.rsplit(' ', 1)",
        "rstrip": "'a\n\n'.rstrip('\n')",
        "split": "messages[2].content.split('</think>')[-1].split(), 'a,b'.split(',', maxsplit=1), ' a b '.split()",
        "splitlines": "'a\nb\r\nc'.splitlines(true)",
        "startswith": "messages[2].content.startswith('<think>')",
        "strip": "' a '.strip()",
        "swapcase": "'aB'.swapcase()",
        "title": "'ab cd'.title()",
        "upper": "'straße'.upper()",
        "zfill": "'7'.zfill(3)",
        **{
            name: f"['a', '1', ' ', ''][1].{name}(), 'x'.{name}()"
            for name in [
                "isalnum",
                "isalpha",
                "isascii",
                "isdecimal",
                "isdigit",
                "isidentifier",
                "islower",
                "isnumeric",
                "isprintable",
                "isspace",
                "istitle",
                "isupper",
            ]
        },
    },
    "dict": {
        "copy": "messages[0].copy()",
        "get": "messages[0].get('role'), messages[0].get('name', 'x')",
        "items": "messages[0].items() | list",
        "keys": "messages[0].keys() | list, 'role' in messages[0].keys()",
        "values": "messages[0].values() | list",
    },
    "list": {"copy": "[1].copy()", "count": "[1, 1].count(1)", "index": "[1, 2].index(2)"},
    "tuple": {"count": "(1, 1).count(1)", "index": "(1, 2).index(2)"},
    "range": {"count": "range(3).count(1)", "index": "range(3).index(2)"},
    "int": {"bit_length": "(5).bit_length()"},
    "float": {"is_integer": "(2.0).is_integer()"},
}
BY_TEST = {
    **dict.fromkeys(
        [
            "eq",
            "equalto",
            "==",
            "ne",
            "!=",
            "gt",
            "greaterthan",
            ">",
            "ge",
            ">=",
            "lt",
            "lessthan",
            "<",
            "le",
            "<=",
            "sameas",
        ],
        "(1)",
    ),
    "filter": "",
    "test": "",
}
OPERATORS = [
    "{{ 1 + 2 - 3 * 4 / 5 // 6 % 7 ** 2 }}{{ 7 % 3 }}{{ -7 // 2 }}{{ 2 ** 10 }}{{ +1 }}{{ -1 }}{{ 1.5 + true }}",
    "{{ 'a' + 'b' + messages[0].role }}{{ 'a' * 3 }}{{ 3 * [1] }}{{ [1] + [2] + [3] }}{{ (1,) + (2,) }}",
    "{{ 'a' ~ 1 ~ none ~ nothing ~ [1, 'é'] ~ messages[0].role }}",
    "{{ '%s and %r' % ('a', 'b') }}{{ '%d%%' % 3 }}{{ '%(a)s' % {'a': 1} }}{{ '%5s|%-5s|%*d' % ('a', 'b', 4, 1) }}",
    "{{ '{} {0[a]!r:>12}'.replace('{} ', '').format({'a': 'x'}) }}{{ '{:.2f} {x}'.format(1.234, x='y') }}",
    "{{ '{role}'.format_map(messages[0]) }}",
    "{{ 1 < 2 <= 2 != 3 == 3 }}{{ 'a' in 'abc' }}{{ 'a' not in ['a'] }}{{ 1 in (1, 2) }}{{ 'role' in messages[0] }}",
    "{{ messages[0] == messages[0] }}{{ messages == [] }}{{ messages[0].role == 'system' }}{{ [1] < [2] }}",
    "{{ messages[1:] }}{{ messages[::-1][0].role }}{{ 'abc'[1:2] }}{{ 'abc'[-1] }}{{ range(9)[2:4] | list }}",
    "{{ {'a': 1, 2: 'b', messages[0].role: 3, none: 4, true: 5} }}{{ dict([('a', 1)], b=2) }}{{ dict({'a': 1}) }}",
    "{{ messages[0]['role'] }}{{ messages[0].role }}{{ messages[9] is defined }}{{ messages[0].nothing }}",
    "{{ 1 if messages else 2 }}{{ 1 if nothing }}{{ not 1 or 2 and 3 }}",
    "{{ range(3) }}{{ range(3) | list }}{{ none }}{{ 1.0 }}{{ true }}{{ (1, 'a') }}{{ messages[0] }}",
    "{% set a, b = 1, 2 %}{{ b }}{% set x %}in {{ a }}{% endset %}{{ x }}{% set y | e %}<{% endset %}{{ y }}",
    "{% for m in messages if m.role != 'user' %}{{ loop.index }}{{ loop.last }}{{ m.role }}{% else %}-{% endfor %}",
    "{% for m in [] %}{% else %}none{% endfor %}{% for a, b in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for m in messages %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.cycle('a', 'b') }}"
    "{{ loop.changed(m.role) }}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in [[1, [2]]] recursive %}{% if x is number %}{{ x }}{% else %}({{ loop(x) }}){% endif %}{% endfor %}",
    "{% macro m(a, b='x') %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, 2, 3, 4, d=5) }}",
    "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) | trim }}",
    "{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(y) m() %}{{ y }}!{% endcall %}",
    "{% filter upper %}a{{ messages[0].role }}{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}",
    "{% block b scoped %}{{ messages | length }}{% endblock %}{{ self.b() }}{% raw %}{{ x }}{% endraw %}{# c #}",
    "{% set j = joiner(', ') %}{% set c = cycler(1, 2) %}{{ j() }}{{ j() }}{{ c.next() }}{{ c.next() }}{{ c.current }}",
    "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + loop.index %}{% endfor %}{{ n.a }}",
]  # fmt: skip


def _both(source: str) -> tuple[str, str]:
    (theirs,), _ = render_jinja_template([MESSAGES], chat_template=source, bos_token="<s>")
    return ChatTemplate(source, {"bos_token": "<s>"}).render(MESSAGES, "record"), theirs


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_writes_the_same(name: str) -> None:
    ours, theirs = _both(BY_FILTER[name])
    assert ours == theirs


@pytest.mark.parametrize("key", METHODS, ids=lambda key: f"{key[0].__name__}.{key[1]}")
def test_each_method_returns_the_same(key: tuple[type, str]) -> None:
    ours, theirs = _both("{{ (" + BY_METHOD[key[0].__name__][key[1]] + ") }}")
    assert ours == theirs


@pytest.mark.parametrize("name", [*TESTS, "in", "odd", "even", "divisibleby"])
def test_each_test_says_the_same(name: str) -> None:
    values = (
        ["2", "3"] if name in ("odd", "even", "divisibleby") else ["'a'", "'upper'", "[1]", "messages[0]", "none", "1"]
    )
    given = {"in": "('abc')", "divisibleby": "(2)"}.get(name, BY_TEST.get(name, ""))
    for value in values:
        source = "{{ [" + value + f"] | select('{name}'" + (f", {given[1:-1]}" if given else "") + ") | list }}"
        try:
            (theirs,), _ = render_jinja_template([MESSAGES], chat_template=source)
        except (TypeError, TemplateError):
            continue
        assert ChatTemplate(source, {}).render(MESSAGES, "record") == theirs, source


@pytest.mark.parametrize("source", OPERATORS)
def test_each_construct_writes_the_same(source: str) -> None:
    ours, theirs = _both(source)
    assert ours == theirs


USUAL = (
    "{% set ns = namespace(last=-1, text='') %}{% for m in messages[::-1] %}{% if ns.last < 0 and m.role == 'user' %}"
    "{% set ns.last = messages | length - 1 - loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
    "{% set content = m.content | trim %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] "
    "%}{% endif %}{{ '<|' + m.role + '|>\\n' + content.strip() + '<|end|>' ~ '\\n' }}"
    "{% if loop.index0 > ns.last and m.role not in ['user', 'assistant'] %}{{ m | tojson }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("turns", "characters"), [(20_000, 10), (200, 82_000), (2, 8_000_000)], ids=["many", "large", "huge"]
)
def test_long_conversations_have_room(turns: int, characters: int) -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": f"{n} " + "é" * characters} for n in range(turns)]
    (theirs,), _ = render_jinja_template([messages], chat_template=USUAL)
    assert ChatTemplate(USUAL, {}).render(messages, "record") == theirs
