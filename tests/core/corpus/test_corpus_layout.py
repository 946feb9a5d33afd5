"""A chat template lays out a conversation, and every character's author is known or the row is refused."""

from __future__ import annotations

import pytest
from graftkit.corpus.layout import Piece, lay_out
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError, ModelError
from graftkit.interfaces.samples import Message

TURNS = (Message("system", "Be brief."), Message("user", " hi "), Message("assistant", "ho\n"))
LOOP = "{% for m in messages %}[{{ m.role }}]BODY{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def laid_out(body: str, messages: tuple[Message, ...] = TURNS, *, reply: bool = False) -> list[Piece]:
    template = ChatTemplate(LOOP.replace("BODY", body), {"eos_token": "</s>"})
    return lay_out(template, messages, "a.jsonl:1", add_generation_prompt=reply)


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
        "{{ m.content | tojson }};",
        "{% if 'h' in m.content %}{{ m.content }}{% endif %};",
        "{{ m.content.split('o') | last }};",
    ],
)
def test_a_template_that_rewrites_a_content_is_refused(body: str) -> None:
    with pytest.raises(DataError, match="the chat template rewrites a message") as caught:
        laid_out(body)
    assert caught.value.where == "a.jsonl:1" and "data.chat_template" in caught.value.hint


def test_a_template_that_leaves_a_message_out_is_refused() -> None:
    with pytest.raises(DataError, match="leaves out message 1"):
        laid_out("-")


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
