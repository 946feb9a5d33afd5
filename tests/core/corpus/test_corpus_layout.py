"""A chat template lays out a conversation, and every character's author is known or the record is refused."""

from __future__ import annotations

import json

import pytest
from graftkit.corpus.layout import Piece, lay_out
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.turns import TOOLS
from graftkit.errors import DataError, ModelError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message, ToolCall

TURNS = (Message("system", "Be brief."), Message("user", " hi "), Message("assistant", "ho\n"))
LOOP = "{% for m in messages %}[{{ m.role }}]BODY{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def laid_out(body: str, messages: tuple[Message, ...] = TURNS, *, reply: bool = False) -> list[Piece]:
    template = ChatTemplate(LOOP.replace("BODY", body), {"eos_token": "</s>"})
    return lay_out(template, Conversation(messages, "a.jsonl:1"), add_generation_prompt=reply)


def contents(pieces: list[Piece]) -> list[tuple[int, str]]:
    return [(piece.message, piece.text) for piece in pieces if piece.message is not None]


def test_contents_and_the_templates_own_text_are_told_apart() -> None:
    assert laid_out("{{ m.content }}{{ eos_token }}") == [
        Piece("[system]", None),
        Piece("Be brief.", 0),
        Piece("</s>[user]", None),
        Piece(" hi ", 1),
        Piece("</s>[assistant]", None),
        Piece("ho\n", 2),
        Piece("</s>", None),
    ]


def test_the_turn_that_a_generation_starts_belongs_to_the_template() -> None:
    pieces = laid_out("{{ m.content }};", TURNS[:2], reply=True)
    assert pieces[-1] == Piece(";[assistant]", None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{{ m.content | trim }};", ["Be brief.", "hi", "ho"]),
        ("{{ m.content.strip() }};", ["Be brief.", "hi", "ho"]),
        ("{{ m['content'].rstrip() }};", ["Be brief.", " hi", "ho"]),
        ("{{ m.content.lstrip() }};", ["Be brief.", "hi ", "ho\n"]),
    ],
)
def test_a_template_that_trims_contents_is_followed(body: str, expected: list[str]) -> None:
    assert [text for _, text in contents(laid_out(body))] == expected


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content | upper }};",
        "{{ m.content[:2] }};",
        "{{ m.content[:1] }}",
        "{{ m.content[1:] }};",
        "{{ m.content | length }};",
        "{{ m.content.replace('h', 'j') }};",
    ],
)
def test_a_template_that_rewrites_a_content_is_refused(body: str) -> None:
    with pytest.raises(DataError, match="the chat template rewrites a message") as caught:
        laid_out(body)
    assert caught.value.where == "a.jsonl:1" and "data.chat_template" in caught.value.hint


@pytest.mark.parametrize("body", ["-", "{% if 'h' in m.content %}{{ m.content }}{% endif %};"])
def test_a_template_that_leaves_a_message_out_is_refused(body: str) -> None:
    with pytest.raises(DataError, match="leaves out message 1"):
        laid_out(body)


def test_a_part_that_a_template_leaves_out_is_named() -> None:
    turns = (Message("user", "hi"), Message("assistant", "because</think>so"))
    body = "{{ m.content.split('</think>') | last }};"
    with pytest.raises(DataError, match="leaves out a part of message 2"):
        laid_out(body, turns)
    kept = "{% set parts = m.content.split('</think>') %}{% for p in parts %}({{ p }}){% endfor %}"
    assert contents(laid_out(kept, turns)) == [(0, "hi"), (1, "because"), (1, "so")]


@pytest.mark.parametrize("filter", ["tojson", "tojson(ensure_ascii=true)"])
def test_a_template_that_escapes_a_content_is_followed(filter: str) -> None:
    turns = (Message("user", 'é "x"\n🎉'), Message("assistant", "y"))
    pieces = laid_out(f"{{{{ m.content | {filter} }}}};", turns)
    written = json.dumps('é "x"\n🎉', ensure_ascii="true" in filter)[1:-1]
    assert contents(pieces) == [(0, written), (1, "y")]


def test_one_author_that_is_trimmed_and_one_that_is_not_are_told_apart() -> None:
    body = "\n{% if m.role == 'user' %}{{ m.content | trim }}{% else %}{{ m.content }}{% endif %};"
    turns = (Message("user", "\n\n hi \n"), Message("assistant", "\nho\n"))
    assert contents(laid_out(body, turns)) == [(0, "hi"), (1, "\nho\n")]


CALLS = """{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}[{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}]
{%- if m.reasoning_content %}<think>{{ m.reasoning_content | trim }}</think>{% endif %}{{ m.content }}
{%- for c in m.tool_calls or [] %}<call>{{ c.function.name }}({{ ARGUMENTS }})</call>{% endfor %};{% endfor %}"""
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "required": ["a"]}}}


@pytest.mark.parametrize("arguments", ["c.function.arguments | tojson", "c.function.arguments + ''"])
@pytest.mark.parametrize("given", [{"a": "é"}, '{"a": "é"}'])
def test_tools_calls_reasoning_and_names_have_their_authors(arguments: str, given: object) -> None:
    turns = (
        Message("user", "one?", name="bob"),
        Message("assistant", "", reasoning=" hm ", tool_calls=(ToolCall("add", given),)),
        Message("tool", "3", name="add"),
        Message("assistant", "three"),
    )
    template = ChatTemplate(CALLS.replace("ARGUMENTS", arguments), {})
    pieces = lay_out(template, Conversation(turns, "here", tools=(TOOL,)))
    assert "".join(piece.text for piece in pieces) == (
        "<tools>" + json.dumps(TOOL) + "</tools>[user bob]one?;[assistant]<think>hm</think><call>add({"
        '"a": "é"})</call>;[tool add]3;[assistant]three;'
    )
    said = [text for message, text in contents(pieces) if message == 1]
    assert said[:2] == ["hm", "add"] and "é" in said[2]
    assert next(text for message, text in contents(pieces) if message == TOOLS) == "add"


@pytest.mark.parametrize("given", ["{", "[" * 100_000])
def test_arguments_that_are_no_json_are_text(given: str) -> None:
    turns = (Message("user", "x"), Message("assistant", "", tool_calls=(ToolCall("add", given),)))
    template = ChatTemplate(CALLS.replace("ARGUMENTS", "c.function.arguments"), {})
    assert (1, given) in contents(lay_out(template, Conversation(turns, "here")))


def test_reasoning_that_a_template_leaves_out_is_named() -> None:
    turns = (Message("user", "x"), Message("assistant", "y", reasoning="hm"))
    with pytest.raises(DataError, match="leaves out message 2's reasoning"):
        laid_out("{{ m.content }};", turns)
    with pytest.raises(DataError, match="leaves out the tools"):
        lay_out(ChatTemplate(LOOP.replace("BODY", "{{ m.content }}"), {}), Conversation(turns[:1], "x", tools=(TOOL,)))


def test_what_a_template_leaves_out_may_be_told_instead() -> None:
    turns = (Message("user", "x"), Message("assistant", "y", reasoning="hm"))
    template = ChatTemplate(LOOP.replace("BODY", "{{ m.content }};"), {})
    left_out: set[str] = set()
    pieces = lay_out(template, Conversation(turns, "here", tools=(TOOL,)), left_out=left_out)
    assert contents(pieces) == [(0, "x"), (1, "y")] and left_out == {"reasoning", "tools"}


def test_what_generation_blocks_hold_is_marked() -> None:
    said, block = "{{ m.content }};", "{% generation %}{{ m.content }};{% endgeneration %}"
    body = f"{{% if m.role == 'assistant' %}}{block}{{% else %}}{said}{{% endif %}}"
    assert [piece.text for piece in laid_out(body) if piece.block is not None] == ["ho\n", ";"]


def test_a_content_that_is_written_twice_is_the_messages_both_times() -> None:
    assert contents(laid_out("{{ m.content }}{{ m.content }};"))[:2] == [(0, "Be brief."), (0, "Be brief.")]


@pytest.mark.parametrize(
    "content", ["\ue0000\ue001", "\ue0002\ue001", "\ue000", "\ue001", "\ue00099\ue001", "{{ 7 * 6 }}"]
)
def test_no_content_is_taken_for_a_mark_or_for_a_template(content: str) -> None:
    turns = (Message("user", content), Message("assistant", f"a{content}b"))
    assert contents(laid_out("{{ m.content }};", turns)) == [(0, content), (1, f"a{content}b")]


@pytest.mark.parametrize("text", ["\ue000", "\ue001", "\ue0007\ue001", "\ue000x"])
def test_a_template_that_itself_holds_a_mark_is_only_text(text: str) -> None:
    pieces = laid_out(f"{text}{{{{ m.content }}}};")
    assert contents(pieces) == [(0, "Be brief."), (1, " hi "), (2, "ho\n")]
    assert "".join(piece.text for piece in pieces).count(text) == 3


def test_ten_and_more_messages_keep_their_numbers() -> None:
    turns = tuple(Message("user", f"<{number}>") for number in range(25))
    assert contents(laid_out("{{ m.content }};", turns)) == [(number, f"<{number}>") for number in range(25)]


def test_an_empty_content_leaves_no_piece() -> None:
    turns = (Message("user", ""), Message("assistant", "x"))
    assert laid_out("{{ m.content }};", turns) == [Piece("[user];[assistant]", None), Piece("x", 1), Piece(";", None)]


def test_a_template_that_refuses_a_conversation_says_why() -> None:
    body = "{% if m.role == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}{{ m.content }}"
    with pytest.raises(DataError, match=r"a\.jsonl:1: the chat template refuses it: no system turns here"):
        laid_out(body)


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content.__class__.__mro__ }}",
        "{{ m.update({'content': 'x'}) }}",
        "{{ messages.append(m) }}",
        "{{ m.nothing.at.all }}",
        "{% for i in range(999999999) %}{% endfor %}",
        "{{ 'x' * 99999999 }}",
    ],
)
def test_a_template_reaches_nothing_outside_its_sandbox(body: str) -> None:
    with pytest.raises(DataError, match="the chat template"):
        laid_out(body)


@pytest.mark.parametrize("source", ["{% for %}", "{{ ", "{% unknown %}", "{% generation %}", "{{ x | nofilter }}"])
def test_a_template_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(ModelError, match="the chat template can't be read"):
        ChatTemplate(source, {})


def test_it_renders_what_transformers_renders() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = (
        "{%- for m in messages %}\n    {%- if loop.first %}{{ bos_token }}{% endif %}\n"
        "    {%- if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\n"
        "    {%- else %}{{ {'é': m.content} | tojson(indent=1) }}{% endif %}\n"
        "    {%- if m.role == 'tool' %}{% break %}{% endif %}\n{%- endfor %}\n{{ add_generation_prompt }}"
    )
    messages = [{"role": message.role, "content": message.content} for message in TURNS]
    [theirs], _ = render_jinja_template([messages], chat_template=source, add_generation_prompt=True, bos_token="<s>")
    ours = ChatTemplate(source, {"bos_token": "<s>"}).render(messages, "here", add_generation_prompt=True)
    assert ours == theirs


REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }};{% endfor %}"
)
DROPS = (
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
FIRST_USER = ChatOptions(system="first_user")


@pytest.mark.parametrize("source", [REFUSES, DROPS])
def test_a_system_message_that_a_template_takes_not_may_stand_before_the_first_user_message(source: str) -> None:
    with pytest.raises(DataError, match=r"refuses it|leaves out message 1") as caught:
        lay_out(ChatTemplate(source, {}), Conversation(TURNS, "here"))
    assert "data.system: first_user" in caught.value.hint
    pieces = lay_out(ChatTemplate(source, {}, options=FIRST_USER), Conversation(TURNS, "here"))
    user = TURNS[1].content if source == DROPS else TURNS[1].content.strip()
    merged = [{"role": "user", "content": f"Be brief.\n\n{TURNS[1].content}"}, {"role": "assistant", "content": "ho\n"}]
    assert "".join(piece.text for piece in pieces) == ChatTemplate(source, {}).render(merged, "here")
    assert contents(pieces)[:2] == [(0, "Be brief."), (1, TURNS[1].content if source == DROPS else " hi")]
    assert user in "".join(piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((Message("system", ""), Message("user", "x")), "[user]x;"),
        ((Message("system", "s"), Message("user", "")), "[user]s;"),
        ((Message("system", "s"), Message("system", "t"), Message("user", "x")), "[user]s\n\nt\n\nx;"),
        ((Message("system", "s"), Message("assistant", "a"), Message("user", "x")), "[assistant]a;[user]s\n\nx;"),
        ((Message("user", "x"), Message("assistant", "a")), "[user]x;[assistant]a;"),
    ],
)
def test_every_system_message_at_the_beginning_is_put_there(turns: tuple[Message, ...], expected: str) -> None:
    pieces = lay_out(ChatTemplate(DROPS, {}, options=FIRST_USER), Conversation(turns, "here"))
    assert "".join(piece.text for piece in pieces) == expected


def test_without_a_user_message_there_is_no_place_for_it() -> None:
    turns = (Message("system", "s"), Message("assistant", "a"))
    with pytest.raises(DataError, match="no user message whose text could follow it"):
        lay_out(ChatTemplate(DROPS, {}, options=FIRST_USER), Conversation(turns, "here"))


def test_a_refusal_for_another_reason_names_no_way_out_that_is_none() -> None:
    template = ChatTemplate("{{ raise_exception('no') }}", {})
    with pytest.raises(DataError) as caught:
        lay_out(template, Conversation(TURNS, "here"))
    assert "data.system" not in caught.value.hint


MEASURED = """{%- for m in messages %}[{{ m.role }}]{{ m.content }}
{%- for c in m.tool_calls or [] %}
{%- if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}<{{ c.id }}>{% endfor %}
{%- if m.tool_call_id and m.tool_call_id == messages[1].tool_calls[0].id %}#{{ loop.index0 }}{% endif %};{% endfor %}"""


def called(id: str) -> Conversation:
    call = Message("assistant", "", tool_calls=(ToolCall("add", {"a": 1}, id),))
    return Conversation((Message("user", "one?"), call, Message("tool", "3", tool_call_id=id)), "here")


def test_a_template_may_measure_and_compare_the_ids_of_calls() -> None:
    pieces = lay_out(ChatTemplate(MEASURED, {}), called("abcdefghi"), left_out=set())
    assert "".join(piece.text for piece in pieces) == "[user]one?;[assistant]<abcdefghi>;[tool]3#2;"
    assert contents(pieces) == [(0, "one?"), (2, "3")]


@pytest.mark.parametrize("id", ["a b c d e", "<|end|>xy", "abc|end|x"])
def test_an_id_that_may_be_more_than_one_is_never_the_templates(id: str) -> None:
    with pytest.raises(DataError, match="rewrites a message"):
        lay_out(ChatTemplate(MEASURED, {}), called(id), controls={"<|end|>"}, left_out=set())
    with pytest.raises(DataError, match="rewrites a message"):
        lay_out(ChatTemplate(MEASURED, {}), called("xENDxxxxx"), controls={"END"}, left_out=set())
