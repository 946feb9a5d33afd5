"""A chat template of a stranger ends within 5 seconds and 512 MB, whatever it says."""

from __future__ import annotations

import pytest

from hostile.limits import Outcome, measure

_LOOP = "{% for i in range(100000) %}BODY{% endfor %}"
_BIG = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = DOUBLED %}{% endfor %}"
_NEST = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
_CHAIN = "{% set ns = namespace(x=(1,)) %}{% for i in range(100000) %}{% set ns.x = (ns.x,) %}{% endfor %}"

HOSTILE = {
    "a long product": "{{ 'a' * 10**9 }}",
    "a long product of a list": "{{ ([0] * 10**9) | length }}",
    "a product from the left": "{{ 10**9 * 'a' }}",
    "many slices": "{{ [1] | slice(10**10) | list }}",
    "a product in a condition": "{% if 'a' * 10**9 %}x{% endif %}",
    "loops in loops": _LOOP.replace("BODY", _LOOP.replace("BODY", "x")),
    "loops that write nothing": _LOOP.replace("BODY", _LOOP.replace("BODY", "")),
    "loops whose condition fails": _LOOP.replace("BODY", "{% for j in range(100000) if false %}{% endfor %}"),
    "a condition that reads": "{% for j in range(100000) if 'x' in messages[0].content * 100 %}{% endfor %}",
    "a width": "{{ '%1000000000d' % 1 }}",
    "a width that is given": "{{ '%*d' % (1000000000, 1) }}",
    "a precision": "{{ '%.1000000000f' % 1.5 }}",
    "a width by name": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "a width of a name in parentheses": "{{ '%((a))1000000000d' % {'(a)': 1} }}",
    "a width in the filter format": "{{ '%1000000000d' | format(1) }}",
    "a width in a test": "{{ '%1000000000d' is odd }}",
    "a width in another test": "{{ '%1000000000d' is divisibleby 3 }}",
    "a width in str.format": "{{ '{:1000000000d}'.format(1) }}",
    "a width of a width in str.format": "{{ '{:{}d}'.format(1, 1000000000) }}",
    "a width in format_map": "{{ '{a:1000000000d}'.format_map({'a': 1}) }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "str.center": "{{ 'a'.center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "expandtabs": "{{ '\t\t'.expandtabs(1000000000) }}",
    "indent": "{{ 'a\nb' | indent(1000000000) }}",
    "indent by much, often": "{{ ('a\n' * 10000) | indent(10000) }}",
    "tojson with an indentation": "{{ [1, [2]] | tojson(indent=1000000000) }}",
    "tojson with a separator": "{{ ([1] * 10000) | tojson(separators=('x' * 100000, ':')) }}",
    "replace that grows": _BIG.replace("DOUBLED", "ns.x | replace('a', 'aa')") + "{{ ns.x }}",
    "str.replace that grows": _BIG.replace("DOUBLED", "ns.x.replace('a', 'aa')") + "{{ ns.x }}",
    "replace of nothing": "{{ ('a' * 100000) | replace('', 'b' * 100000) }}",
    "sums that double": _BIG.replace("DOUBLED", "ns.x + ns.x") + "{{ ns.x }}",
    "tildes that double": _BIG.replace("DOUBLED", "ns.x ~ ns.x") + "{{ ns.x }}",
    "lists that double": _NEST.replace("[ns.x, ns.x]", "ns.x + ns.x") + "{{ ns.x | length }}",
    "joins that double": _BIG.replace("DOUBLED", "[ns.x, ns.x] | join") + "{{ ns.x }}",
    "a join with a long separator": "{{ range(100000) | join('a' * 100000) }}",
    "a join of an iterator": "{{ range(100000) | map('string') | join('a' * 100000) }}",
    "a join of an attribute": "{% set n = namespace(a='x' * 1000000) %}{{ ([n] * 10000) | join(attribute='a') }}",
    "a sort of an attribute": "{% set n = namespace(a='X' * 1000000) %}{{ ([n] * 10000) | sort(attribute='a') }}",
    "blocks that double": "{% set x = 'a' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
    "filter blocks": "{% filter replace('a', 'a' * 100000) %}{{ 'a' * 100000 }}{% endfilter %}",
    "a tree that is written": _NEST + "{{ ns.x }}",
    "a tree as JSON": _NEST + "{{ ns.x | tojson }}",
    "a tree that is joined": _NEST + "{{ ns.x | join }}",
    "a tree that is formatted": _NEST + "{{ '%s' % (ns.x,) }}",
    "a tree in str.format": _NEST + "{{ '{!r}'.format(ns.x) }}",
    "trees that are compared": (_NEST + _NEST.replace("ns", "mm")) + "{{ ns.x == mm.x }}",
    "trees that are tested": (_NEST + _NEST.replace("ns", "mm")) + "{{ ns.x is eq(mm.x) }}",
    "a tree that is looked for": (_NEST + _NEST.replace("ns", "mm")) + "{{ ns.x in [mm.x] }}",
    "a namespace that is written": "{% set n = namespace() %}{% set n.a = [n, n] %}{{ n }}",
    "a namespace in a list": "{% set n = namespace() %}{% set n.a = [n, n] %}{{ [n, n] }}",
    "a deep tuple as a key": _CHAIN + "{{ {ns.x: 1} }}",
    "a deep tuple that is looked up": _CHAIN + "{{ {}[ns.x] }}{{ {}.get(ns.x) }}",
    "a deep tuple that is unique": _CHAIN + "{{ [ns.x] | unique | list }}",
    "a deep tuple that is written": _CHAIN + "{{ ns.x }}",
    "a deep list as JSON": _CHAIN + "{{ ns.x | tojson }}",
    "keys that collide": "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = ns.x + "
    "[(i * (2**61 - 1), 0)] %}{% endfor %}{{ dict(ns.x * 1) | length }}{{ dict(ns.x) | length }}",
    "powers": "{{ 9 ** 9 ** 9 }}",
    "powers of powers": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "a number of many digits": "{{ ('f' * 1000000) | int(base=16) }}",
    "a number in the source": "{{ " + "9" * 100000 + " }}",
    "round": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list | length }}",
    "a list of characters": "{% for i in range(9999) %}{% set x = (('a' * 100000) | list) %}{% endfor %}",
    "a split": "{% for i in range(9999) %}{% set x = ('a ' * 100000).split() %}{% endfor %}",
    "a split into a list that is kept": "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}"
    "{% set ns.x = [ns.x, ('é ' * 100000).split(' ')] %}{% endfor %}",
    "slices that are kept": "{% set ns = namespace(x=[]) %}{% set a = 'a' * 1000000 %}{% for i in range(99999) %}"
    "{% set ns.x = [ns.x, a[1:]] %}{% endfor %}",
    "a dictionary an item": "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% for j in range(100000) %}"
    "{% set ns.x = {1: ns.x, 2: {}} %}{% endfor %}{% endfor %}",
    "a search backwards": "{{ ('a' * 1000000).rfind('b' + 'a' * 100000) }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that calls itself often": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "macros with costly defaults": "{% macro m(a=["
    + "'x' in 'y'," * 4000
    + "]) %}{% endmacro %}"
    + _LOOP.replace("BODY", "{% set x = m() %}"),
    "many arguments": "{% macro m() %}{{ varargs | length }}{% endmacro %}"
    + _LOOP.replace("BODY", "{{ m(*range(99999)) }}"),
    "a recursive loop": "{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "a block that calls itself": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "nested maps": "{{ range(100000) | map('string') | map('upper') | map('center', 9000) | list | length }}",
    "a map over maps": _LOOP.replace("BODY", "{{ range(100000) | map('string') | list | length }}"),
    "a selection of none": _LOOP.replace("BODY", "{{ range(100000) | select('none') | list }}"),
    "a search in a loop": "{% set a = 'a' * 1000000 %}" + _LOOP.replace("BODY", "{{ 'b' in a }}"),
    "a count in a loop": "{% set a = 'a' * 1000000 %}" + _LOOP.replace("BODY", "{{ a.count('b') }}"),
    "comparisons in a loop": "{% set a = 'a' * 1000000 %}{% set b = 'a' * 1000000 %}"
    + _LOOP.replace("BODY", "{{ a == b }}"),
    "sorting in a loop": _LOOP.replace("BODY", "{% set x = range(100000) | sort(reverse=true) %}"),
    "a sum of lists": "{{ ([[1]] * 100000) | sum(start=[]) | length }}",
    "a sum in a loop": _LOOP.replace("BODY", "{{ range(100000) | sum }}"),
    "lorem ipsum": "{{ lipsum(n=1000000) }}",
    "urlize": "{{ ('http://' * 100000) | urlize }}",
    "striptags": "{{ ('<!--' * 100000 ~ '-->' * 100000) | striptags }}",
    "wordwrap": "{{ ('a' * 1000000) | wordwrap(1) }}",
    "pprint": _NEST + "{{ ns.x | pprint }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "encode": "{{ (('é' ~ 'a' * 100000) * 4).encode('punycode') | length }}",
    "to_bytes": "{{ (1).to_bytes(1000000000, 'big') | length }}",
    "a date": "{{ strftime_now('%c' * 1000000) }}",
    "escapes that double": _BIG.replace("DOUBLED", "(ns.x ~ '&') | e | string | e") + "{{ ns.x }}",
    "urlencode": _BIG.replace("DOUBLED", "(ns.x ~ '%') | urlencode") + _LOOP.replace("BODY", "{{ ns.x }}"),
    "much text": _LOOP.replace("BODY", "x" * 100000),
    "much source": "{{ 'a' }}" * 100000,
    "many conditions": "{% if a %}{% set a = 1 %}{% endif %}" * 4000,
    "many names": "".join(f"{{% if x{n} %}}{{% set y{n} = 1 %}}{{% endif %}}" for n in range(2500)),
    "many loops": "".join(f"{{% for x{n} in [1] %}}{{{{ loop.index }}}}{{% endfor %}}" for n in range(2500)),
    "many macros": "".join(f"{{% macro m{n}(a) %}}{{{{ a }}}}{{% endmacro %}}" for n in range(2000)),
    "deep parentheses": "{{ " + "(" * 50000 + "1" + ")" * 50000 + " }}",
    "deep lists": "{{ " + "[" * 50000 + "1" + "]" * 50000 + " }}",
    "deep conditions": "{% if a %}" * 6000 + "{% endif %}" * 6000,
    "a long sum": "{{ 1" + " + 1" * 20000 + " }}",
    "a long and": "{{ 1" + " and 1" * 20000 + " }}",
    "many filters": "{{ 'a'" + " | upper" * 10000 + " }}",
    "autoescape": "{% autoescape 'a' * 10**9 %}{% endautoescape %}",
}
"""What it is -> the template. Some of them are harmless once they are bounded, and render."""

_CODE = """
from graftkit.corpus.template import ChatTemplate

MESSAGES = [{"role": "user", "content": "a & b " * 20}, {"role": "assistant", "content": "c"}]

def case(source):
    return len(ChatTemplate(source, {}).render(MESSAGES, "records.jsonl:1"))
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return measure(_CODE, HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_ends_soon_and_stays_small(name: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.error in ("", "DataError", "TemplateLimitError", "ModelError"), outcome
    outcome.assert_within_limits()
    assert not outcome.error or "chat template" in outcome.message
