"""Commands that make records of answers of which one is better, or that are wanted or not."""

from __future__ import annotations

from graftkit.flow.records.jq_commands import Look, Remade, prompt_in
from graftkit.interfaces.record_format import Column

__all__ = ["ranked", "rejected_beside", "two_answers", "wanted_or_not"]


def two_answers(look: Look) -> Remade:
    """Two answers beside a number, or a name, that says which is better: HelpSteer's, PKU-SafeRLHF's, WebGPT's."""
    found = look.found
    pair = next((pair for pair in _TWO if all(name in found for name in pair)), None)
    if pair is None:
        return None
    one, other = pair
    by = next((by for by in _BETTER if by in found and found[by].types <= {"number", "null"}), None)
    scores = [f"score_{name[-1]}" for name in pair]
    if by:
        told, judged = f"'{by}' says", f"select(.{by} and .{by} != 0) | .{by} > 0"
    elif "better_response_id" in found and one == "response_0":
        told, judged = "'better_response_id' says", ".better_response_id == 1"
    elif all(name in found for name in scores):
        told = f"'{scores[0]}' and '{scores[1]}' say"
        judged = f"select(.{scores[0]} != .{scores[1]}) | .{scores[1]} > .{scores[0]}"
    elif "winner" in found and one.endswith("_a"):
        told, judged = "'winner' says", 'select(.winner | startswith("model_")) | .winner == "model_b"'
    else:
        return None
    prompt = prompt_in(found)
    if prompt is None and not found[one].is_list_of_objects:
        return None
    asked = f"prompt: $r{prompt}, " if prompt else ""
    made = (
        f". as $r | {judged} | if . then [$r.{other}, $r.{one}] else [$r.{one}, $r.{other}] end | "
        f"{{{asked}chosen: .[0], rejected: .[1]}}"
    )
    return f"'{one}' and '{other}', of which {told} the better one,", made


_TWO = (
    *(("response_1", "response_2"), ("response1", "response2"), ("response_0", "response_1")),
    *(("answer_0", "answer_1"), ("conversation_a", "conversation_b")),
    *(("human_ref_A", "human_ref_B"), ("response_a", "response_b")),
)
_BETTER = ("preference_strength", "overall_preference")
"""What data sets call a number that is below 0 where the first of two answers is better, and above where the second."""


def ranked(look: Look) -> Remade:
    """Several answers to a prompt with ranks, as Nectar has them, or with scores, as UltraFeedback has them."""
    found = look.found
    prompt = prompt_in(found)
    for name in ("answers", "completions", "responses"):
        if prompt is None or name not in found or not found[name].is_list_of_objects:
            continue
        keys = found[name].keys
        text = next((key for key in ("answer", "response", "completion", "text", "content") if key in keys), None)
        by = next((key for key in ("rank", "overall_score", "score") if key in keys), None)
        if text and by:
            best, worst = ("first", "last") if by == "rank" else ("last", "first")
            made = (
                f". as $r | .{name} | sort_by(.{by} | tonumber) | select(first.{by} != last.{by}) | "
                f"{{prompt: $r{prompt}, chosen: {best}.{text}, rejected: {worst}.{text}}}"
            )
            return f"'{name}', of which '{by}' says the best and the worst one,", made
    return None


def wanted_or_not(look: Look) -> Remade:
    """Answers beside which a number or a text says whether they are wanted, or a column of another name does.

    As a column `label` of true and false they are read.
    """
    found = look.found
    label = next((name for name in _WANTED if name in found and name not in look.read), None)
    if label is None or found[label].types & {"list", "object"} or not look.values(label) <= {*_YES, *_NO}:
        return None
    yes, no = (", ".join(f'"{value}"' for value in values) for values in (_YES, _NO))
    said = f'if IN({yes}) then true elif IN({no}) then false else error("{label} is neither yes nor no") end'
    wanted = f"(.{label} | tostring | ascii_downcase | {said})"
    turns = next((name for name in ("messages", "conversations") if name in found), None)
    if turns and found[turns].is_list_of_objects:
        beside = "".join(f", {name}: .{name}" for name in ("system", "tools") if name in found)
        made = f"{{prompt: .{turns}[:-1], completion: .{turns}[-1:], label: {wanted}{beside}}}"
        return f"'{label}' beside '{turns}', which says whether the answer is wanted,", made
    pair = next(
        (pair for pair in _ANSWERED if {*pair} <= found.keys() and all(found[name].is_text for name in pair)), None
    )
    if pair is None or (pair == ("prompt", "completion") and label == "label" and found[label].types == {"boolean"}):
        return None
    made = f"{{prompt: .{pair[0]}, completion: .{pair[1]}, label: {wanted}}}"
    return f"'{label}' beside '{pair[0]}' and '{pair[1]}', which says whether the answer is wanted,", made


_WANTED = ("kto_tag", "desirable", "is_desirable", "label")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "-1")
"""What data sets call the column that says whether an answer is wanted, and what stands in it, in small letters."""

_ANSWERED = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("instruction", "output"))
"""What they call a prompt and its answer beside it."""


def rejected_beside(look: Look) -> Remade:
    """A rejected answer beside messages, as ms-swift and When2Call have them, or OpenAI's preferred output."""
    found = look.found
    made = None
    beside = "".join(f", {name}: .{name}" for name in ("system", "tools") if name in found)
    worse = next((name for name in ("rejected_response", "rejected_messages") if name in found), None)
    if {"preferred_output", "non_preferred_output"} <= found.keys() and "messages" in found.get("input", _NONE).keys:
        worse = "non_preferred_output"
        tools = ", tools: .input.tools" if "tools" in found["input"].keys else ""
        made = f"{{prompt: .input.messages, chosen: .preferred_output, rejected: .{worse}{tools}}}"
    elif worse is None or "messages" not in found or not found["messages"].is_list_of_objects:
        return None
    elif "chosen_response" in found and "object" in found[worse].types:
        made = f"{{prompt: .messages, chosen: [.chosen_response], rejected: [.{worse}]{beside}}}"
    elif found[worse].is_list_of_objects:
        made = f"{{chosen: .messages, rejected: .{worse}{beside}}}"
    elif found[worse].is_text:
        said = f'[{{role: "assistant", content: .{worse}}}]'
        made = f"{{prompt: .messages[:-1], chosen: .messages[-1:], rejected: {said}{beside}}}"
    return None if made is None else (f"'{worse}', an answer that is worse than another,", made)


_NONE = Column()
