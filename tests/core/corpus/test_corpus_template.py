"""A template writes what it writes in `transformers`, or is refused where it is refused there."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError, GraftkitError, ModelError
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from jinja2 import TemplateError
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

MESSAGES = [
    {"role": "user", "content": "Grüße <b>&'\"\n日本"},
    {"role": "assistant", "content": "ok"},
]
VALUE = "{'b': [1, 2.5, None, True], 'a': 'é<&\\'>', 'c': {}}"
RENDERED = {
    "json": "{{ messages | tojson }}",
    "json with every argument": "{{ " + VALUE + " | tojson(ensure_ascii=True, indent=2, sort_keys=True) }}",
    "json with separators": "{{ " + VALUE + " | tojson(separators=(',', ':')) }}",
    "json indented by a text": "{{ " + VALUE + " | tojson(indent='\t') }}",
    "json with arguments in order": "{{ " + VALUE + " | tojson(true, 1, (', ', ' : '), true) }}",
    "json, first argument": "{{ " + VALUE + " | tojson(4) }}",
    "json, a test of none": "{{ none | tojson }}{{ 'x' | tojson }}",
    "break": "{% for m in messages %}{{ m.role }}{% break %}{% endfor %}",
    "continue": "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "generation, trimmed": "a {%- generation -%} b {{ messages[1].content }} {%- endgeneration -%} c",
    "generation with a line of its own": "a\n  {% generation %}\nb\n  {% endgeneration %}\nc\n",
    "generation has variables of its own": "{% set x = 1 %}{% generation %}{% set x = 2 %}{% endgeneration %}{{ x }}",
    "generation sees around it": "{% for m in [1, 2] %}{% generation %}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "no tools": "{% if tools is defined %}d{% endif %}{% if tools is not none %}n{% endif %}{{ tools }}{{ documents }}",
    "a namespace": "{% set n = namespace(x=0) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}",
    "a namespace of self": "{% set n = namespace(self=3) %}{{ n.self }}{{ namespace({'a': 1}).a }}",
    "a dict": "{{ dict(a=1, b=2) | tojson }}{{ dict({'a': 1}).a }}",
    "blocks are trimmed": "  {% if true %}\n  x\n  {% endif %}\n\n y\n",
    "a list is not changed": "{% set found = messages + [1] %}{{ found | length }}",
    "methods": "{{ messages[0].content.split('\\n')[-1].strip().upper() }}{{ messages[1]['content'][::-1] }}",
    "the last line": "x\n\n",
}
REFUSED = {
    "raise_exception": "{{ raise_exception('roles must alternate') }}",
    "a list changed": "{% set _ = messages.append(1) %}",
    "an underscored variable": "{% set n = namespace(_x=0) %}",
    "an underscored variable set later": "{% set n = namespace() %}{% set n._x = 1 %}",
    "internals": "{{ messages.__class__.__mro__ }}",
    "adding what is not there": "{{ 'a' + unk_token }}",
    "json that is none": "{{ range | tojson }}",
}
MALFORMED = {
    "break outside a loop": "{% break %}",
    "break out of a generation": "{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "generation without an end": "{% generation %}",
    "far too deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "an unknown tag": "{% call_tool %}",
}


@pytest.mark.parametrize("name", RENDERED)
def test_it_writes_the_same(name: str) -> None:
    (theirs,), _ = render_jinja_template([MESSAGES], chat_template=RENDERED[name], bos_token="<s>")
    assert ChatTemplate(RENDERED[name], {"bos_token": "<s>"}).render(MESSAGES, "record") == theirs


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_the_same(name: str) -> None:
    with pytest.raises((TemplateError, TypeError)) as theirs:
        render_jinja_template([MESSAGES], chat_template=REFUSED[name])
    template = ChatTemplate(REFUSED[name], {})
    with pytest.raises(DataError, match="record: the chat template refuses it") as ours:
        template.render(MESSAGES, "record")
    assert name != "raise_exception" or str(theirs.value) in ours.value.message


@pytest.mark.parametrize("name", MALFORMED)
def test_it_is_none_to_either(name: str) -> None:
    with pytest.raises((TemplateError, SyntaxError, RecursionError)):
        render_jinja_template([MESSAGES], chat_template=MALFORMED[name])
    with pytest.raises(GraftkitError, match="the chat template can't be read"):
        ChatTemplate(MALFORMED[name], {})


def test_a_template_and_the_one_for_tools_have_one_limit_together() -> None:
    source = f"{{# {'a' * 60_000} #}}"
    with pytest.raises(ModelError, match="template and the one for tools have 120,012 characters; at most 100,000"):
        ChatTemplate(source, {}, tool_use=ChatTemplate(source, {}))


def test_it_knows_the_same_tokens_by_name(tmp_path: Path) -> None:
    for file, data in tiny_tokenizer_files().items():
        (tmp_path / file).write_bytes(data)
    source = "{% for t in [bos_token, eos_token, pad_token, unk_token] %}{{ t is defined }} {{ t }}|{% endfor %}"
    ours = HuggingFaceBackend().load(tmp_path).with_chat_template(source)
    template = chat_template_of(ours)
    assert template is not None
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(MESSAGES, chat_template=source, tokenize=False)
    assert template.render(MESSAGES, "record") == theirs
