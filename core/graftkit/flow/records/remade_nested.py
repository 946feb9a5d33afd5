"""Commands that make records of objects and lists whose parts belong together, or of records that do."""

from __future__ import annotations

from graftkit.flow.records.format_guess import FACTS, question_and_answer
from graftkit.flow.records.jq_commands import Look, Remade
from graftkit.interfaces.record_format import Column

__all__ = [
    "context_in_parts",
    "lone_messages",
    "parts_of_gemini",
    "selected_passages",
    "shares_of_labels",
    "spans_of_answers",
    "system_in_parts",
    "truth_of_prompt",
]

_NONE = Column()


def parts_of_gemini(look: Look) -> Remade:
    """Messages whose texts are in parts, as Gemini is tuned with."""
    contents = look.found.get("contents", _NONE)
    if not contents.is_list_of_objects or not {"role", "parts"} <= contents.keys:
        return None
    text = '(.parts | map(.text // error("a part without a text")) | join(""))'
    name = next((name for name in ("systemInstruction", "system_instruction") if name in look.found), None)
    system = f'[.{name} // empty | {{role: "system", content: {text}}}] + ' if name else ""
    return "'contents', of parts,", f"{{messages: ({system}[.contents[] | {{role, content: {text}}}])}}"


def system_in_parts(look: Look) -> Remade:
    """A system prompt in parts, as Bedrock has it."""
    system = look.found.get("system", _NONE)
    if "messages" not in look.read or not system.is_list_of_objects or "text" not in system.keys:
        return None
    return "'system', a list of parts,", '.system |= (map(.text) | join("\\n"))'


def lone_messages(look: Look) -> Remade:
    """Messages of trees, a record each, of which each path of best ranked replies makes a conversation: OASST's."""
    if not {"message_id", "parent_id", "role", "text"} <= look.found.keys():
        return None
    made = (
        "[., inputs] as $all | INDEX($all[]; .message_id) as $known | "
        'INDEX($all[] | select((.rank // 0) == 0) | .parent_id // ""; .) as $answered | '
        'def path: (if .parent_id then $known[.parent_id] // error("its parent is missing") | path else empty end), .; '
        '$all[] | .message_id as $id | select(.role == "assistant" and ($answered[$id] | not)) | '
        "[path] | select(all((.rank // 0) == 0)) | {messages: map({role, content: .text})}"
    )
    return "'parent_id', the message that each one follows,", made


def context_in_parts(look: Look) -> Remade:
    """What a question is about in titles and sentences, as HotpotQA and PubMedQA have it, or in a list of texts."""
    found = look.found
    texts = [name for name, column in found.items() if column.is_text and not FACTS.fullmatch(name)]
    read = {*(look.read or question_and_answer(texts) or ())}
    name = next((name for name in _CONTEXTS if name in found and name not in read), None)
    asked = next((name for name in _ASKED if name in read), None)
    beside = [name for name in ("system", "system_prompt") if name in (look.read or found)]
    answers = sorted(read - {asked, *beside})
    if name is None or asked is None or len(answers) != 1:
        return None
    column, titled = found[name], 'map(.[0] + "\\n" + (.[1] | join(""))) | join("\\n\\n")'
    if {"title", "sentences"} <= column.keys and "object" in column.types:
        text = f".{name} | [.title, .sentences] | transpose | {titled}"
    elif "contexts" in column.keys and "object" in column.types:
        text = f'.{name}.contexts | join("\\n\\n")'
    elif column.items == {"list"}:
        text = f".{name} | {titled}"
    elif column.items == {"string"}:
        text = f'.{name} | join("\\n\\n")'
    else:
        return None
    more = "".join(f", system: .{name}" for name in beside)
    made = f"{{instruction: .{asked}, input: ({text}), output: .{answers[0]}{more}}}"
    return f"'{name}', what the question is about,", made


_CONTEXTS = ("context", "contexts", "passages", "documents", "ctxs")
"""What data sets call several texts that a question is about."""

_ASKED = ("question", "query", "prompt", "problem", "input", "instruction")


def selected_passages(look: Look) -> Remade:
    """Passages of which marks say which ones answer a query, as MS MARCO has them."""
    passages = look.found.get("passages", _NONE)
    if not {"is_selected", "passage_text"} <= passages.keys or "query" not in look.found:
        return None
    made = (
        ". as $r | .passages | [.is_selected, .passage_text] | transpose | {query: $r.query, "
        "positive: map(select(.[0] == 1) | .[1]), negative: map(select(.[0] != 1) | .[1])} | select(.positive != [])"
    )
    return "'passages', of which 'is_selected' says which ones answer 'query',", made


def spans_of_answers(look: Look) -> Remade:
    """An answer of several spans of a text, as DROP has it."""
    if "spans" not in look.found.get("answers_spans", _NONE).keys or "question" not in look.found:
        return None
    return "'answers_spans' of 'question'", '.answer = (.answers_spans.spans | join(", ")) | del(.answers_spans)'


def truth_of_prompt(look: Look) -> Remade:
    """The answer that sampled ones are compared with, as verl has it."""
    if "prompt" not in look.read or "ground_truth" not in look.found.get("reward_model", _NONE).keys:
        return None
    truth = '(.reward_model.ground_truth | if type == "string" then . else tojson end)'
    return "'ground_truth' in 'reward_model'", f"{{prompt, completion: {truth}}}"


def shares_of_labels(look: Look) -> Remade:
    """How much of several labels a text has, from 0 to 1, as Civil Comments has them."""
    shares = [name for name in _SHARES if look.found.get(name, _NONE).types == {"number"} and name not in look.read]
    text = next((name for name in ("text", "comment_text") if look.found.get(name, _NONE).is_text), None)
    if text is None or len(shares) < 3 or all(look.values(name) <= {"0", "1"} for name in shares):
        return None
    listed = ", ".join(f'"{name}"' for name in shares)
    made = f"{{text: .{text}, labels: [[{listed}] as $names | . as $r | $names[] | select($r[.] >= 0.5)]}}"
    return f"'{shares[0]}' and {len(shares) - 1} more columns, each a share of a label of '{text}',", made


_SHARES = ("toxicity", "toxic", "severe_toxicity", "obscene", "threat", "insult", "identity_attack", "sexual_explicit")
