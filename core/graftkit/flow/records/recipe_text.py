"""The text of a recipe to start from, with comments that say what may be changed, and what is told of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from graftkit.articles import counted
from graftkit.flow.records.format_guess import Guess
from graftkit.flow.records.left_out import unread_columns
from graftkit.flow.records.starting_point import StartingPoint
from graftkit.visible import one_line

__all__ = ["TEMPLATE_FILE", "recipe_text", "told_of_guess", "told_of_start", "why_own_template"]

_RECIPE = """\
# A graftkit recipe. `toolkit plan {name}` checks it, `toolkit run {name}` runs it.
# Relative paths start at this file's folder.

model: {model}            # a folder with config.json, *.safetensors, tokenizer.json; or a .gguf file
data:
  train: {train}{guessed}
  holdout: {holdout: <15}# the share that training never sees, or a file
  max_length: {max_length}{space}# tokens of an example at most
{template}{turns}{dropped}
{objective}quantizer: {quantizer: <15}# how frozen weights are stored: nf4, int8, none; stored: as the file holds them
adapter: {{use: lora, rank: 16, alpha: 32, targets: all-linear}}

training:
  epochs: {epochs}               # or steps: N
  tokens_per_step: {tokens_per_step}
  learning_rate: {learning_rate}
  seed: 0

{evaluation}export: [peft, merged]
"""

_GUESSED = "guessed from the columns' names: change it where it is wrong"

_EACH = "each answer is an example: the chat template leaves out earlier reasoning"
"""What a recipe says of conversations of which every answer is an example of its own."""

TEMPLATE_FILE = "chatml.jinja"
"""What graftkit's own chat template is called beside the recipe."""

_OBJECTIVES: Mapping[str, tuple[str, str]] = {
    "dpo": ("chosen answers before rejected ones; also orpo, simpo", ""),
    "kto": ("wanted answers, and none of the unwanted ones", ""),
    "classification": (
        "by a head, one score a label; sft writes the label as an answer",
        "a few labels: objective: classification trains a classifier; with objective: sft it is to write them",
    ),
    "multi-label-classification": (
        "by a head that judges each label by itself; sft learns the texts alone",
        "lists of a few labels: objective: multi-label-classification judges each by itself; with objective: sft the "
        "texts alone are learnt",
    ),
    "regression": (
        "by a head with one output; sft learns the texts alone",
        "a number beside each text: objective: regression learns it; with objective: sft the texts alone are learnt",
    ),
    "similarity": (
        "vectors whose cosines follow the numbers; regression tells the number itself",
        "a number of each pair of texts: objective: similarity learns vectors whose cosines follow it; objective: "
        "regression learns to tell it of the two together",
    ),
    "embedding": ("vectors, by which the positives are found for the queries", ""),
    "token-classification": ("a tag of each word, by a head on tokens; sft learns the texts alone", ""),
}
"""What a recipe says of an objective that is not fine-tuning, and what is told of it besides, if anything."""

_OF_PAIRS = "; objective: similarity learns vectors of the two texts, whose cosines follow it"

_UNKNOWN: Mapping[str, float | str] = {
    "holdout": 0.05,
    "max_length": 1024,
    "quantizer": "nf4",
    "epochs": 3,
    "tokens_per_step": 4096,
    "learning_rate": "2e-4",
}


def recipe_text(
    name: str, model: str, entry: Mapping[str, Any], found: StartingPoint | None, guess: Guess | None
) -> str:
    """Returns the text of a recipe.

    Args:
        name: What its file is called.
        model: The base model, as the recipe names it.
        entry: The records, as an entry of `data.train` names them and as much as was said of them.
        found: What a look at model and records came to; None where there was none.
        guess: What was guessed of the records, if anything.
    """
    numbers = _UNKNOWN if found is None else _numbers(found)
    template = found is not None and found.template is not None
    return _RECIPE.format(
        name=name,
        model=_quoted(model),
        train=_entry(entry, found, guess),
        guessed=f"  # {_GUESSED}" if guess else "",
        template=f"  chat_template: {TEMPLATE_FILE}   # {why_own_template(found)}\n" if found and template else "",
        turns=f"  turns: each             # {_EACH}\n" if found and found.turns == "each" else "",
        dropped=f"  dropped: report         # {_left_out(found)}\n" if found and found.left_out else "",
        objective=_objective(found) if found else "",
        evaluation=_evaluation(found),
        space=" " * max(1, 12 - len(str(numbers["max_length"]))),
        **numbers,
    )


def why_own_template(found: StartingPoint) -> str:
    """Says why the recipe names graftkit's own chat template."""
    lacks = f"leaves out: {', '.join(found.instead_of)}" if found.instead_of else "is missing"
    return f"the model's own chat template {lacks}"


def told_of_guess(guess: Guess) -> str:
    """Says what was guessed of the records."""
    told = [f"{ours} is {one_line(theirs)}" for ours, theirs in guess.get("columns", {}).items()]
    format = guess.get("format")
    options = format if isinstance(format, Mapping) else {}
    as_text = ["the score is a number written as text"] if "as_text" in options else []
    languages = [f"{options['source']} is translated into {options['target']}"] if "source" in options else []
    lists = [f"{one_line(name)} holds lists written as text" for name in guess.get("reader", {}).get("lists", ())]
    return f"{_GUESSED}: {', '.join([*told, *as_text, *languages, *lists])}"


def told_of_start(found: StartingPoint) -> Iterator[str]:
    """Says what a look at model and records came to, line by line."""
    for dataset in found.datasets[:5]:
        left = f"; not read: {unread_columns(dataset.left, dataset.known)}" if dataset.left else ""
        reading = f": {one_line(dataset.reading)}" if dataset.reading else ""
        yield f"{one_line(str(dataset.source))}: read by {dataset.reader_name} as {dataset.format_name}{reading}{left}"
    if found.left_out:
        yield _left_out(found)
    if told := _OBJECTIVES.get(found.objective, ("", ""))[1]:
        yield told + (_OF_PAIRS if found.objective == "regression" and found.pairs else "")
    if found.holdout != _UNKNOWN["holdout"]:
        held = max(1, round(found.holdout * found.records))
        yield f"held out are about {held:,} of {counted(found.records, 'record')}: 5% would be too few to measure by"
    if found.checked < found.records:
        yield f"checked are {found.checked:,} of the records, evenly spread; toolkit plan checks all of them"
    steps = counted(found.steps, "step")
    yield f"{counted(found.records, 'record')}, about {steps} of {counted(found.tokens_per_step, 'token')}"


def _objective(found: StartingPoint) -> str:
    """Returns the recipe's line of the objective; nothing for fine-tuning."""
    if found.new_tokens is not None:
        fields = f"{{use: {found.objective}, group_size: 8, max_new_tokens: {found.new_tokens}}}"
        return f"objective: {fields} # 8 answers to each prompt\n"
    if found.objective == "sft":
        return ""
    said, _ = _OBJECTIVES.get(found.objective, ("", ""))
    return f"objective: {found.objective: <14} # {said}\n" if said else f"objective: {found.objective}\n"


def _evaluation(found: StartingPoint | None) -> str:
    """Returns the recipe's line of how answers are compared, or nothing where the model writes none.

    Where it learns from its own answers, they are rewarded so, too.
    """
    if found is not None and not found.writes_answers:
        return ""
    if found is None or not found.metric:
        return "evaluation: {answers: 0}   # N holdout records to answer and compare, before and after\n"
    fields = f"{{metrics: {found.metric}, answers: 0}}"
    return f"evaluation: {fields}   # what answers are rewarded by; also contains, regex, a plugin's\n"


def _numbers(found: StartingPoint) -> dict[str, float | str]:
    return {
        "holdout": found.holdout,
        "max_length": found.max_length,
        "quantizer": found.quantizer,
        "epochs": found.epochs,
        "tokens_per_step": found.tokens_per_step,
        "learning_rate": f"{found.learning_rate:.0e}".replace("e-0", "e-"),
    }


def _entry(said: Mapping[str, Any], found: StartingPoint | None, guess: Mapping[str, Any] | None) -> str:
    """Returns the recipe's entry of the records: what was said, their format and columns, and what is not read."""
    entry = {**said, **(guess or {})}
    formats = {dataset.format_name for dataset in found.datasets} if found else set[str]()
    if found and len(formats) == 1 and (formats != {"text"} or len(entry) > 1):
        left = sorted({name for dataset in found.datasets for name in dataset.left})
        entry = {"format": formats.pop(), **({"unused": left} if left else {}), **entry}
    entry = {key: entry[key] for key in (*_KEYS, *entry) if entry.get(key) not in (None, {})}
    return _quoted(entry["path"]) if len(entry) == 1 else _flow(entry)


_KEYS = ("path", "format", "columns", "unused")
"""What an entry of `data.train` says first, in this order."""


def _flow(value: Any) -> str:
    """Returns a value as YAML writes it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(str(key))}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return _quoted(value)


def _left_out(found: StartingPoint) -> str:
    return f"the model's chat template leaves out: {', '.join(found.left_out)}"


def _quoted(value: Any) -> str:
    """Returns a scalar as YAML writes it, on one line: a text bare where that means the same and shows all of it."""
    import yaml

    if isinstance(value, str) and value != one_line(value):
        return yaml.safe_dump(value, default_style='"', width=math.inf).strip()
    return yaml.safe_dump(value, allow_unicode=True, width=math.inf).removesuffix("...\n").strip()
