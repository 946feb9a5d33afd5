"""What is learnt with a model's own template is what TRL marks in its copy of it, with `{% generation %}` blocks."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from graftkit.corpus.layout import lay_out
from graftkit.corpus.learnt import LearntParts
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.turns import TemplateForm, template_input
from graftkit.interfaces.samples import Conversation, Message, ToolCall
from transformers.utils.chat_template_utils import render_jinja_template

pytest.importorskip("trl")
CONTROL = re.compile(r"<\|[\w/\"]+\|?>|<[\w]+\|>|<｜[^｜]*｜>|<(?:start|end)_of_turn>|</s>")
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
CALL = ToolCall("get", {"city": "Rome"}, "abcdefghi")
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}}
TOOLS = ({"type": "function", "function": {"name": "get", "description": "gets", "parameters": CITY}},)
ASKED, RESULT = Message("user", "Weather?"), Message("tool", "sunny", name="get", tool_call_id="abcdefghi")
TURNS = (ASKED, Message("assistant", "Sunny."), Message("user", "Sure?"), Message("assistant", "Yes."))
THOUGHT = (ASKED, Message("assistant", "Sunny.", reasoning="I look out."))
CALLED = (ASKED, Message("assistant", "", tool_calls=(CALL,)), RESULT, Message("assistant", "Sunny."))


@pytest.mark.parametrize(
    ("name", "turns"),
    [
        *((name, TURNS) for name in ("llama3", "gemma3", "deepseekv3", "diffusion_gemma", "gptoss", "lfm2")),
        *((name, THOUGHT) for name in ("qwen3", "gptoss", "muse_glimmer")),
        *((name, CALLED) for name in ("qwen2_5", "deepseekv3", "gptoss", "lfm2_v2", "muse_glimmer")),
    ],
)
def test_what_is_learnt_is_what_trl_marks(name: str, turns: tuple[Message, ...]) -> None:
    found = find_spec("trl")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent / "chat_templates"
    own, marked = ((folder / f"{name}{kind}.jinja").read_text() for kind in ("", "_training"))
    conversation = Conversation(turns, "here", TOOLS if turns is CALLED else ())
    template, controls = ChatTemplate(own, SPECIALS), sorted({*CONTROL.findall(own), "</s>"})
    parts = LearntParts(template, controls)
    pieces = lay_out(template, conversation, controls=controls, left_out=set())
    spans, before = list[str](), 0.0
    for part in parts.parts(pieces, conversation):
        if part.weight:
            spans = [*spans, part.text] if not before else [*spans[:-1], spans[-1] + part.text]
        before = part.weight
    messages, tools = template_input(conversation, TemplateForm(), lambda leaf: leaf.text)
    texts, places = render_jinja_template(
        [messages], tools=tools, chat_template=marked, return_assistant_tokens_mask=True, **SPECIALS
    )
    prompt = parts.generation_prompt.removesuffix("<think>\n")
    expected = "".join(texts[0][start:end].removeprefix(prompt).strip() for start, end in places[0])
    assert "".join(span.strip() for span in spans) == expected.replace("<｜tool▁outputs▁end｜>", "")
