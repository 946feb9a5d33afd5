"""What is learnt of a conversation is what a model writes in use: from the generation prompt to the end of its turn."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from graftkit import Tokenizer
from graftkit.corpus.encode import Encoder
from graftkit.corpus.layout import lay_out
from graftkit.corpus.learnt import LearntParts, misses_an_answer
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import Conversation, Message, ToolCall

CONTROLS = ("<s>", "</s>", "<|begin|>", "<|end|>", "<|stop|>", "<think>", "</think>", "<call>", "</call>")
TURNS = (Message("user", "a?"), Message("assistant", "one"), Message("user", "b?"), Message("assistant", "two"))
CALLS = (
    Message("user", "a?"),
    Message("assistant", "", tool_calls=(ToolCall("add", {"n": 1}),)),
    Message("tool", "3"),
    Message("assistant", "two"),
)
LOOP = "{% for m in messages %}<|begin|>{{ m.role }}:BODY{% endfor %}{% if add_generation_prompt %}REPLY{% endif %}"
FUNCTION = "{{ c.function.name }}({{ c.function.arguments | tojson }})"
CALL = "{% for c in m.tool_calls or [] %}<call>" + FUNCTION + "</call>{% endfor %}"


def learnt(
    body: str, turns: tuple[Message, ...] = TURNS, reply: str = "<|begin|>assistant:", loop: str = LOOP
) -> list[str]:
    template = ChatTemplate(loop.replace("BODY", body).replace("REPLY", reply), {"eos_token": "</s>"})
    return stretches(LearntParts(template, CONTROLS), template, turns)


def stretches(parts: LearntParts, template: ChatTemplate, turns: Sequence[Message]) -> list[str]:
    conversation = Conversation(tuple(turns), "here")
    found, before = [], 0.0
    pieces = lay_out(template, conversation, controls=CONTROLS, left_out=set())
    for part in parts.parts(pieces, conversation):
        if part.weight:
            found += [part.text] if not before else []
            found[-1] = found[-1] if not before else found[-1] + part.text
        before = part.weight
    return found


ASSISTANT = "{% if m.role == 'assistant' %}IS{% else %}{{ m.content }}<|end|>{% endif %}"


@pytest.mark.parametrize(
    ("body", "reply", "expected"),
    [
        ("{{ m.content }}<|end|>\n", "<|begin|>assistant:", ["one<|end|>", "two<|end|>"]),
        ("{{ m.content }}<|end|><|stop|>\n", "<|begin|>assistant:", ["one<|end|><|stop|>", "two<|end|><|stop|>"]),
        ("{{ m.content }} ###\n", "<|begin|>assistant:", ["one ###", "two ###"]),
        ("{{ m.content }}\n", "<|begin|>assistant:", ["one", "two"]),
        (
            ASSISTANT.replace("IS", "<think>\n\n</think>{{ m.content }}<|end|>"),
            "<|begin|>assistant:",
            ["<think>\n\n</think>one<|end|>", "<think>\n\n</think>two<|end|>"],
        ),
        (
            ASSISTANT.replace("IS", "<think>\n\n</think>{{ m.content }}<|end|>"),
            "<|begin|>assistant:<think>\n",
            ["\n</think>one<|end|>", "\n</think>two<|end|>"],
        ),
        (
            ASSISTANT.replace("IS", "{{ m.content }}{% if loop.last %}<|stop|>{% else %}<|end|>{% endif %}"),
            "<|begin|>assistant:",
            ["one<|end|>", "two<|stop|>"],
        ),
        ("{{ m.content }}<|end|>", "<|begin|>bot:", ["one<|end|>", "two<|end|>"]),
        (ASSISTANT.replace("IS", "{% generation %}{{ m.content }}!{% endgeneration %}<|end|>"), "", ["one!", "two!"]),
    ],
)
def test_an_answer_is_learnt_from_the_generation_prompt_to_the_end(body: str, reply: str, expected: list[str]) -> None:
    assert learnt(body, reply=reply) == expected


def test_tool_calls_are_learnt_with_what_closes_them_and_results_are_not() -> None:
    assert learnt(f"{{{{ m.content }}}}{CALL}<|end|>\n", CALLS) == ['<call>add({"n": 1})</call><|end|>', "two<|end|>"]
    closed = "{{ m.content }}" + CALL + "{% if not m.tool_calls %}<|end|>{% else %}<|stop|>{% endif %}"
    assert learnt(closed, CALLS) == ['<call>add({"n": 1})</call><|stop|>', "two<|end|>"]


THOUGHT = (
    "{% if m.reasoning_content %}%%{{ m.reasoning_content }}<|end|><|begin|>assistant:!{% endif %}"
    "{{ m.content }}<|end|>"
)
RESULT_INSIDE = (
    "{% if m.role != 'tool' %}" + CALL.replace("</call>", "<s></call>") + "{% if m.tool_calls %}<|stop|>"
    "{% if not loop.last %}response:{{ messages[loop.index].content }}<|stop|>{% endif %}{% endif %}{{ m.content }}"
    "{% if not m.tool_calls %}<|end|>{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    ("body", "reply", "turns", "expected"),
    [
        (
            THOUGHT,
            "<|begin|>assistant:",
            (TURNS[0], Message("assistant", "one", reasoning="so"), *TURNS[2:]),
            ["%%so<|end|><|begin|>assistant:!one<|end|>", "two<|end|>"],
        ),
        (
            f"{{{{ m.content }}}}{CALL}<|end|>",
            "<|begin|>assistant:<think>",
            CALLS,
            ['<call>add({"n": 1})</call><|end|>', "two<|end|>"],
        ),
        (
            f"{{% if m.role == 'assistant' %}}<think></think>{{% endif %}}{{{{ m.content }}}}{CALL}<|end|>",
            "<|begin|>assistant:<think>\n",
            CALLS,
            ['</think><call>add({"n": 1})</call><|end|>', "two<|end|>"],
        ),
        (
            RESULT_INSIDE,
            "<|begin|>assistant:",
            (CALLS[0], Message("assistant", "look", tool_calls=CALLS[1].tool_calls), *CALLS[2:]),
            ['<call>add({"n": 1})<s></call><|stop|>', "look", "two<|end|>"],
        ),
        (
            "{{ m.content }}<|end|>{% if loop.last %}<|stop|>{% endif %}",
            "",
            (TURNS[0], Message("assistant", "one", tool_calls=CALLS[1].tool_calls), *TURNS[2:]),
            ["one<|end|>", "two<|end|><|stop|>"],
        ),
    ],
    ids=[
        *("an answer after its reasoning", "a longer prompt", "another prompt", "a result within the turn"),
        "calls left out",
    ],
)
def test_a_turn_that_the_template_writes_in_parts_is_learnt_whole(
    body: str, reply: str, turns: tuple[Message, ...], expected: list[str]
) -> None:
    assert learnt(body, turns, reply) == expected


def test_an_answer_after_a_result_within_its_turn_is_learnt_from_where_the_prompt_ends() -> None:
    head = "<|begin|>{{ m.role }}:"
    loop = LOOP.replace(head, "{% if m.role == 'user' or loop.previtem.role == 'user' %}" + head + "{% endif %}")
    body = (
        "{% if m.role == 'tool' %}response:{{ m.content }}<|stop|>{% else %}{% if m.reasoning_content %}<think>"
        "{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}" + CALL + "<|end|>{% endif %}"
    )
    turns = (*CALLS[:3], Message("assistant", "two", reasoning="so"))
    reply = "{% if messages[-1].role != 'tool' %}<|begin|>assistant:{% endif %}"
    calls = '<call>add({"n": 1})</call><|end|>'
    assert learnt(body, turns, reply, loop) == [calls, "<think>so</think>two<|end|>"]


def test_a_call_after_words_beside_an_earlier_one_is_learnt_with_what_opens_it() -> None:
    """Gemma 4's template writes words beside a call after its result, and begins no turn before the next call."""
    head = "<|begin|>{{ m.role }}:"
    loop = LOOP.replace(head, "{% if m.role == 'user' or loop.previtem.role == 'user' %}" + head + "{% endif %}")
    body = (
        "{% if m.role != 'tool' %}" + CALL + "{% if m.tool_calls %}<|stop|>{% if not loop.last %}response:"
        "{{ messages[loop.index].content }}<|stop|>{% endif %}{% endif %}{{ m.content }}<|end|>\n{% endif %}"
    )
    called = Message("assistant", "look", tool_calls=CALLS[1].tool_calls)
    reply = "{% if messages[-1].role != 'tool' %}<|begin|>assistant:{% endif %}"
    call = '<call>add({"n": 1})</call><|stop|>'
    wanted = [call, "look<|end|>", call, "look<|end|>", "two<|end|>"]
    assert learnt(body, (CALLS[0], called, CALLS[2], called, *CALLS[2:]), reply, loop) == wanted


def test_where_the_next_turn_ends_one_calls_are_learnt_up_to_the_token_that_begins_it() -> None:
    """As in GLM's template, whose models stop at `<|observation|>`."""
    loop = LOOP.replace("<|begin|>{{ m.role }}:", "{{ {'user': '<s>', 'tool': '<|stop|>'}[m.role] or '<|begin|>' }}")
    body = "{% if m.role == 'tool' %}result:{{ m.content }}{% else %}{{ m.content }}" + CALL + "{% endif %}"
    assert learnt(body, CALLS, "<|begin|>", loop) == ['<call>add({"n": 1})</call><|stop|>', "two"]


def test_what_is_learnt_of_a_conversation_does_not_depend_on_those_before_it() -> None:
    """Such as one whose turns the template refuses to lay out alone."""
    refuse = "{% if messages[0].content == 'odd' and messages|length < 4 %}{{ raise_exception('no') }}{% endif %}"
    loop = LOOP.replace("<|begin|>{{ m.role }}:", "{{ {'user': '<s>', 'tool': '<|stop|>'}[m.role] or '<|begin|>' }}")
    body = "{% if m.role == 'tool' %}result:{{ m.content }}{% else %}{{ m.content }}" + CALL + "{% endif %}"
    source = refuse + loop.replace("BODY", body).replace("REPLY", "<|begin|>")
    template = ChatTemplate(source, {"eos_token": "</s>"})
    parts = LearntParts(template, CONTROLS)
    odd = stretches(parts, template, (Message("user", "odd"), *CALLS[1:]))
    assert stretches(parts, template, CALLS) == ['<call>add({"n": 1})</call><|stop|>', "two"] != odd


def test_a_call_that_a_later_turn_repeats_is_learnt_once() -> None:
    """Some templates name the function again before its result."""
    body = (
        "{% if m.role == 'tool' %}{{ messages[loop.index0 - 1].tool_calls[0].function.name }}={{ m.content }}<|end|>"
        f"{{% else %}}{{{{ m.content }}}}{CALL}<|end|>{{% endif %}}"
    )
    assert learnt(body, CALLS) == ['<call>add({"n": 1})</call><|end|>', "two<|end|>"]


def test_weights_hold_for_the_whole_turn() -> None:
    turns = (TURNS[0], Message("assistant", "one", 0.0), Message("user", "b?", 0.5), TURNS[3])
    assert learnt("{{ m.content }}<|end|>\n", turns) == ["b?<|end|>", "two<|end|>"]


NEXT_ROLE = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "end", "expected"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "</s>", ["one", "two</s>"]),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}", "</s>", ["one", "two</s>"]),
        (
            "{% for m in messages %}<s>{{ m.role }}{{ m.content }} ##</s>{% endfor %}",
            "</s>",
            ["one ##</s>", "two ##</s>"],
        ),
        (
            "{% for m in messages %}<s>{{ m.content }}<|end|>\n<|stop|>{% endfor %}",
            "<|stop|>",
            ["one<|end|>\n<|stop|>"] * 2,
        ),
        ("{% for m in messages %}<s>{{ m.content }}<|end|><|stop|>{% endfor %}", "<|end|>", ["one<|end|>"] * 2),
        (NEXT_ROLE, "<|user|>", ["one<|user|>", "two<|user|>"]),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
            "{% else %}{{ m.content }}{% endif %}</s>\n{% endfor %}",
            "</s>",
            ["one</s>"] * 2,
        ),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}"
            "{% generation %}{{ m.content }}</s>{% endgeneration %}"
            "{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
            "</s>",
            ["one</s>"] * 2,
        ),
    ],
)
def test_what_ends_a_turn_may_be_said(source: str, end: str, expected: list[str]) -> None:
    template = ChatTemplate(source, {}, options=ChatOptions(end_of_turn=end))
    conversation = Conversation(TURNS, "here")
    controls = (*CONTROLS, "<|user|>", "<|assistant|>")
    found, before = [], 0.0
    pieces = lay_out(template, conversation, controls=controls)
    for part in LearntParts(template, controls).parts(pieces, conversation):
        if part.weight:
            found += [] if before else [""]
            found[-1] += part.text
        before = part.weight
    assert [found[0], found[-1]] == [expected[0], expected[-1].replace("one", "two")] and len(found) == 2


def test_an_answer_that_spells_the_end_of_a_turn_gets_one_nevertheless() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{{ m.content }}{% endfor %}", {}, options=ChatOptions(end_of_turn="</s>")
    )
    conversation = Conversation((Message("user", "x"), Message("assistant", "y</s>")), "here")
    parts = list(LearntParts(template, CONTROLS).parts(lay_out(template, conversation), conversation))
    assert [(part.text, part.written) for part in parts if part.weight] == [("y</s>", False), ("</s>", True)]
    parts = list(
        LearntParts(template, CONTROLS).parts(lay_out(template, conversation), conversation, add_end_of_turn=False)
    )
    assert "".join(part.text for part in parts) == "xy</s>"


FIRST_ALONE = (
    "{% if loop.index == 2 %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
)


@pytest.mark.parametrize(
    ("body", "weight", "misses"),
    [
        (FIRST_ALONE, None, True),
        (FIRST_ALONE, 0.0, False),
        (FIRST_ALONE, 1.0, False),
        (ASSISTANT.replace("IS", "{% generation %}{{ m.content }}{% endgeneration %}"), None, False),
        ("{{ m.content }}", None, False),
    ],
)
def test_an_answer_outside_the_blocks_is_told_where_others_have_one(
    bytewise: Tokenizer, body: str, weight: float | None, misses: bool
) -> None:
    template = ChatTemplate(LOOP.replace("BODY", body).replace("REPLY", ""), {})
    conversation = Conversation((*TURNS[:3], Message("assistant", "two", weight)), "here")
    assert misses_an_answer(lay_out(template, conversation), conversation) is misses
    encoded = Encoder(bytewise, template, 1000).encode(conversation)
    assert encoded.unmarked is misses and not encoded.left_out


BLOCKS = {
    "a block a message": LOOP.replace("REPLY", "").replace(
        "BODY", ASSISTANT.replace("IS", "{% generation %}{{ m.content }}<|end|>{% endgeneration %}")
    ),
    "blocks beside one another": "{{ messages[0].content }}{% for m in messages[1:] %}{% generation %}"
    "{{ m.role }}:{{ m.content }}<|end|>{% endgeneration %}{% endfor %}",
    "one block": "{{ messages[0].content }}{% generation %}{% for m in messages[1:] %}"
    "<|begin|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}{% endgeneration %}",
    "no words between": "{{ messages[0].content }}<|begin|>{% generation %}{% for m in messages[1:] %}"
    "{{ m.content }}{% endfor %}<|end|>{% endgeneration %}",
    "the end alone": LOOP.replace("REPLY", "").replace(
        "BODY", "{{ m.content }}{% generation %}<|end|>{% endgeneration %}"
    ),
    "a question in it": "{% generation %}{% for m in messages %}<|begin|>{{ m.role }}:{{ m.content }}<|end|>"
    "{% endfor %}{% endgeneration %}",
    "without an end": "{% generation %}{{ messages | map(attribute='content') | join(' and ') }}{% endgeneration %}",
}
SAID = (Message("user", "a?"), Message("assistant", "one", 0.0), Message("assistant", "two", 0.5))


@pytest.mark.parametrize(
    ("body", "turns", "expected"),
    [
        ("a block a message", SAID, [("two<|end|>", 0.5)]),
        ("blocks beside one another", SAID, [("assistant:two<|end|>", 0.5)]),
        ("one block", SAID, [("<|begin|>assistant:two<|end|>", 0.5)]),
        ("one block", (SAID[0], SAID[2], SAID[1]), [("<|begin|>assistant:two<|end|>", 0.5)]),
        ("no words between", SAID, [("two<|end|>", 0.5)]),
        ("no words between", (*SAID[:2], Message("assistant", "two")), [("two<|end|>", 1.0)]),
        ("the end alone", SAID, [("two<|end|>", 0.5)]),
        ("a question in it", TURNS[:2], [("<|begin|>assistant:one<|end|>", 1.0)]),
        ("a question in it", (TURNS[0], Message("assistant", "one", 0.25)), [("<|begin|>assistant:one<|end|>", 0.25)]),
        ("without an end", TURNS[:2], [(" and one", 1.0)]),
    ],
)
def test_in_blocks_each_messages_words_have_its_weight(
    body: str, turns: tuple[Message, ...], expected: list[tuple[str, float]]
) -> None:
    template = ChatTemplate(BLOCKS[body], {})
    conversation = Conversation(turns, "here")
    pieces = lay_out(template, conversation, controls=CONTROLS)
    parts = [(part.text, part.weight) for part in LearntParts(template, CONTROLS).parts(pieces, conversation)]
    assert "".join(text for text, _ in parts) == "".join(piece.text for piece in pieces)
    found: list[tuple[str, float]] = []
    for text, weight in parts:
        if found and found[-1][1] == weight:
            found[-1] = (found[-1][0] + text, weight)
        else:
            found.append((text, weight))
    assert [part for part in found if part[1]] == expected


def test_words_between_messages_of_other_weights_are_refused() -> None:
    template = ChatTemplate(BLOCKS["without an end"], {})
    parts = LearntParts(template, CONTROLS).parts(
        lay_out(template, Conversation(SAID, "here")), Conversation(SAID, "here")
    )
    with pytest.raises(DataError, match="here: messages 2 and 3 have other weights"):
        list(parts)
