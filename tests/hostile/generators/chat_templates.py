"""Chat templates: Jinja's syntax, what a sandbox has to refuse, and templates that raise or write nothing."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

from graftkit.corpus.template import ChatTemplate

from hostile.mutate import apply, bytes_changed, hostile_string, spliced

PENDING: frozenset[str] = frozenset()
NAMED = ("chat_template", "chat template", "a conversation")

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LONG = (
    "{%- set ns = namespace(found=false) -%}{% if messages[0].role == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% else %}{% set loop_messages = messages %}{% endif %}{{ bos_token }}{% for m in loop_messages %} "
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% generation %}{{ m['content'] | trim }}"
    "{% endgeneration %}{{ eos_token }}{% endfor %}{{ strftime_now('%d %b %Y') }}{{ tools | tojson }}"
)
_FRAGMENTS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}", "{{ messages.__class__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns.__init__ = 1 %}", "{% include 'etc/passwd' %}", "{% import 'os' as os %}",
    "{% extends 'x' %}", "{{ self }}",
    "{{ self._TemplateReference__context }}", "{{ cycler.__init__.__globals__ }}", "{{ lipsum.__globals__ }}",
    "{{ lipsum(3) }}", "{{ joiner() }}",
    "{{ 1/0 }}", "{{ x }}", "{{ x.y.z }}", "{{ messages[99] }}", "{{ messages[0].nothing.at.all }}",
    "{{ raise_exception(3) }}", "{{ raise_exception() }}",
    "{{ strftime_now('%Q%Ey' * 20) }}", "{{ strftime_now() }}", "{{ strftime_now(3) }}", "{{ strftime_now('\ud800') }}",
    "{{ messages | tojson(indent=-1) }}",
    "{{ namespace | tojson }}", "{{ messages | map('nothing') | list }}", "{{ '%s%s' | format('a') }}",
    "{{ '{0.__class__}'.format('a') }}", "{{ '{:>9}'.format(1) }}",
    "{% break %}", "{% continue %}", "{% for x in messages %}{% break %}{% endfor %}", "{% generation %}",
    "{% endgeneration %}", "{% raw %}{{ {% endraw %}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{% endcall %}", "{% set x = 1 %}{{ x.real.imag }}",
    "{{ messages[0]['content'].encode().hex() }}", "{{ messages[0]['content'].join(['a','b']) }}",
    "{% filter upper %}x{% endfilter %}", "{# {# #}", "{{ '\\ud800' }}",
    "{{ 'a' ~ '\\x00' }}", "{% if %}", "{% for %}", "{% set = 1 %}", "{{ | }}", "{{ (1 }}", "{{ {1: [}} }}",
    "{{ 9999999999 // 1 }}", "{{ [].pop() }}", "{{ {}.popitem() }}",
    "{{ messages | sum(attribute='role') }}", "{{ messages | groupby('role') | list }}", "{{ true + 'x' }}",
    "{{ undefined() }}", "{{ dict(messages) }}", "{{ messages.0.role }}",
    "{{ range(0) | first }}", "{{ range(3) | random }}", "{{ 'a' | attr('__class__') }}",
    "{{ messages | attr('append') }}", "{{ debug() }}", "{% debug %}", "{% do x %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}", "{% trans %}x{% endtrans %}",
    "{% with a = 1 %}{{ a }}{% endwith %}", "{% block a %}{{ super() }}{% endblock %}",
    "{% block a %}{% endblock %}{% block a %}{% endblock %}", "{{ 'x' | tojson(sort_keys='a', separators=(1, 2)) }}",
    "{{ 'x' | indent(9, true) }}", "{{ 1.0 | int('x', 99) }}",
    "{{ messages | batch(0) | list }}", "{{ messages | slice(0) | list }}", "{{ 'a' | truncate(-5) }}",
    "{{ 'a' | wordwrap(0) }}", "{{ 'a b' | wordwrap(-1) }}", "{{ 'a' | center(9) }}",
    "{{ 'x' | urlize }}", "{{ 'x' | xmlattr }}", "{{ {'a b': 1} | xmlattr }}", "{{ -1 | filesizeformat }}",
    "{{ 'x' is divisibleby 0 }}", "{{ 'x' is nothing }}", "{{ 1 is in 1 }}",
)  # fmt: skip
_TIME = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{{ range(100000) | sum }}" * 400,
    "{% for a in range(9999) %}{{ range(99999) | list | length }}{% endfor %}", "{{ 9**9**9 }}",
    "{{ (9**99999) * (9**99999) }}", "{{ messages | map('list') | list * 9999999 }}",
    "{% set ns = namespace(n=1) %}{% for a in range(99999) %}{% set ns.n = ns.n * 99999 %}{% endfor %}",
    "{{ lipsum(9999) }}", "{{ '%.99999999f' | format(1.0) }}",
)  # fmt: skip
_MEMORY = (
    "{{ 'a' * 999999999 }}", "{{ [0] * 999999999 }}",
    "{% set ns = namespace(s='a') %}{% for a in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{{ 'a' | center(999999999) }}", "{{ 'a' | indent(999999999, true) }}",
    "{{ ('a' * 99999).replace('a', 'a' * 99999) }}", "{{ '%999999999d' | format(1) }}",
    "{{ '{:>999999999}'.format(1) }}", "{{ range(99999) | map('string') | join('x' * 99999) }}",
    "{{ 'a'.ljust(999999999) }}", "{{ 'a' | list * 999999999 }}",
)  # fmt: skip
_KINDS = [
    ("fragment", 14),
    ("cut", 5),
    ("bytes", 5),
    ("spliced", 3),
    ("characters", 4),
    ("nested", 3),
    ("time", 2),
    ("memory", 2),
]
_ODD = "{}%#-'\"|()[].,~=\\\n \x00é🙂0aé"


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    source = draw.choice((_CHATML, _LONG))
    for kind in kinds:
        source = _changed(draw, source, kind)
    (folder / "template.jinja").write_text(source, encoding="utf-8", errors="surrogatepass")
    return kinds


def _changed(draw: random.Random, source: str, kind: str) -> str:
    at = draw.randrange(len(source) + 1)
    if kind == "fragment":
        odd = draw.choice(_FRAGMENTS)
        return draw.choice((odd + source, source + odd, source[:at] + odd + source[at:], odd))
    if kind == "cut":
        end = draw.randrange(len(source) + 1)
        return source[: min(at, end)] + source[max(at, end) :]
    if kind == "bytes":
        return bytes_changed(draw, source.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    if kind == "spliced":
        return spliced(draw, source.encode("utf-8", "replace"), _LONG.encode()).decode("utf-8", "replace")
    if kind == "characters":
        letters = list(source)
        for _ in range(draw.choice((1, 2, 5))):
            letters.insert(
                draw.randrange(len(letters) + 1),
                draw.choice((draw.choice(_ODD), draw.choice(_ODD), hostile_string(draw)[:100])),
            )
        return "".join(letters)
    if kind == "nested":
        depth = draw.choice((10, 90, 500, 4000))
        opening, closing = draw.choice(
            (
                ("{% if true %}", "{% endif %}"),
                ("{% for x in [1] %}", "{% endfor %}"),
                ("{{ ", " }}"),
                ("{% set x %}", "{% endset %}"),
            )
        )
        inner = draw.choice(("(", "[", "-", "not ", "x.", "x(", "x|f(", "'a'~"))
        return draw.choice((opening * depth + source + closing * depth, "{{ " + inner * depth + "1 }}" + source))
    return draw.choice((source, "")) + draw.choice(_TIME if kind == "time" else _MEMORY)


def valid(folder: Path) -> None:
    (folder / "template.jinja").write_text(_LONG)


def read(folder: Path) -> None:
    source = (folder / "template.jinja").read_text(encoding="utf-8", errors="surrogatepass")
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, date(2026, 1, 31))
    messages = [{"role": "user", "content": "Grüße 🙂 {{ 1 }}"}, {"role": "assistant", "content": "  4\n"}]
    for prompt in (False, True):
        text = template.render(messages, "a conversation", add_generation_prompt=prompt)
        assert isinstance(text, str)
        text.encode("utf-8")
    assert template.fingerprint
