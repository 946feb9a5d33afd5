"""`toolkit init`: a recipe to start from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftkit.articles import counted
from graftkit.cli.init_from import converted_recipe
from graftkit.cli.options import disable_option, open_host, said_of_records
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import say
from graftkit.errors import DataError, FolderError, RecipeError, RequestError, UnknownFormatError
from graftkit.interfaces.regular_file import read_regular
from graftkit.recipe.paths import anchored_reference, is_address, seen_from
from graftkit.store.files import check_new_file, write_new_text
from graftkit.visible import one_line

if TYPE_CHECKING:
    from graftkit.flow.records.starting_point import StartingPoint

__all__ = ["command"]

_RECIPE = """\
# A graftkit recipe. `toolkit plan {name}` checks it, `toolkit run {name}` runs it.
# Relative paths start at this file's folder.

model: {model}            # a folder with config.json, *.safetensors, tokenizer.json; or a .gguf file
data:
  train: {train}{guessed}
  holdout: 0.05           # the share that training never sees, or a file
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

_TEMPLATE_FILE = "chatml.jinja"
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

_UNKNOWN = {
    "max_length": 1024,
    "quantizer": "nf4",
    "epochs": 3,
    "tokens_per_step": 4096,
    "learning_rate": "2e-4",
}


@click.command("init")
@click.argument("path", type=click.Path(dir_okay=False), default="recipe.yaml")
@click.option("--model", default="./model", show_default=True, help="The base model.")
@click.option(
    "--train",
    default="train.jsonl",
    show_default=True,
    help="The records: a file, a folder or a pattern; or a mapping as the recipe has it, "
    "'{path: FILE, columns: {question: THEIRS, answer: THEIRS}}'.",
)
@click.option(
    "--from",
    "other",
    type=click.Path(dir_okay=False),
    help="Convert this file of Axolotl, LLaMA-Factory or TRL instead.",
)
@click.option("--objective", help="What to learn, where that is not what suits the records best: grpo, orpo, sft, ...")
@disable_option
@click.pass_context
def command(
    context: click.Context,
    path: str,
    model: str,
    train: str,
    other: str | None,
    objective: str | None,
    disable: tuple[str, ...],
) -> None:
    """Write a recipe to start from to PATH (recipe.yaml).

    Where the records and the model are there, they are looked at: the recipe then names the records' format and the
    columns that are not read, and has lengths, steps and a learning rate that fit them. Where no format fits, but the
    columns' names say which is the question and which the answer, it names those, and says that they are guessed.
    Records that --train names and that can't be used are refused.

    With --objective it is learnt what that says, where the records are such as it learns from: with grpo answers that
    the model samples, rewarded by a metric to begin with.

    With --from the recipe says what another program's file does. Keys that mean something else are told, and so are
    those that are not converted, each with the reason.
    """
    target = Path(path)
    check_new_file(target)
    if other is not None:
        for name in ("model", "train", "objective"):
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} is what the file of --from says; change it in the recipe")
        text, lines = converted_recipe(Path(other), target, disable)
        write_new_text(target, text)
        say(f"wrote {one_line(path)}")
        for line in lines:
            say(line)
        return
    path_of_records, said = said_of_records(train, "--train")
    named_records = context.get_parameter_source("train") is click.core.ParameterSource.COMMANDLINE
    found, guess, trouble = _look(model, path_of_records, said, disable, objective, named_records=named_records)
    template = _template_line(target.parent, found) if found else ""
    numbers = _UNKNOWN if found is None else _numbers(found)
    here, folder = Path.cwd(), target.parent
    named = seen_from(folder, model, anchored_reference(model, here))
    records = path_of_records
    if not is_address(records):
        records = seen_from(folder, records, str(here / records), looked_at=found is not None)
    files = _entry({"path": records, **said}, found, guess)
    guessed = f"  # {_GUESSED}" if guess else ""
    dropped = f"  dropped: report         # {_left_out(found)}\n" if found and found.left_out else ""
    turns = f"  turns: each             # {_EACH}\n" if found and found.turns == "each" else ""
    learnt = _objective(found) if found else ""
    space = " " * max(1, 12 - len(str(numbers["max_length"])))
    name = one_line(path)
    recipe = _RECIPE.format(
        name=name,
        model=_quoted(named),
        train=files,
        guessed=guessed,
        template=template,
        turns=turns,
        dropped=dropped,
        objective=learnt,
        evaluation=_evaluation(found),
        space=space,
        **numbers,
    )
    with _template_beside(target.parent, found if template else None):
        write_new_text(target, recipe)
    say(f"wrote {name}")
    if found and template:
        say(f"wrote {one_line(str(target.parent / _TEMPLATE_FILE))}: {_why_own(found)}")
    if guess:
        told = [f"{ours} is {one_line(theirs)}" for ours, theirs in guess.get("columns", {}).items()]
        format = guess.get("format")
        options = format if isinstance(format, Mapping) else {}
        as_text = ["the score is a number written as text"] if "as_text" in options else []
        languages = [f"{options['source']} is translated into {options['target']}"] if "source" in options else []
        lists = [f"{one_line(name)} holds lists written as text" for name in guess.get("reader", {}).get("lists", ())]
        say(f"{_GUESSED}: {', '.join([*told, *as_text, *languages, *lists])}")
    for line in [*(_told(found) if found else ()), *([trouble] if trouble else ())]:
        say(line)


def _template_line(folder: Path, found: StartingPoint) -> str:
    """Returns the recipe's line of graftkit's own chat template where the model's won't do, or nothing.

    Raises:
        FolderError: There is another file of this name.
    """
    if found.template is None:
        return ""
    _holds(folder / _TEMPLATE_FILE, found.template)
    return f"  chat_template: {_TEMPLATE_FILE}   # {_why_own(found)}\n"


@contextmanager
def _template_beside(folder: Path, found: StartingPoint | None) -> Iterator[None]:
    """Writes graftkit's own chat template, and removes it again where the recipe that names it can't be written.

    Args:
        folder: The recipe's.
        found: What the template is of; None where the recipe names none.
    """
    path = folder / _TEMPLATE_FILE
    if found is None or found.template is None or _holds(path, found.template):
        yield
        return
    write_new_text(path, found.template)
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _holds(path: Path, text: str) -> bool:
    """Returns whether a file holds a text; False where there is no such file, nor a link of this name.

    Raises:
        FolderError: It is anything else.
    """
    encoded = text.encode()
    if not os.path.lexists(path):
        return False
    with suppress(OSError):  # larger, no regular file, or one that may not be read
        if read_regular(path, len(encoded)) == encoded:
            return True
    raise FolderError("there is such a file already", where=str(path), hint="Move it away.")


def _why_own(found: StartingPoint) -> str:
    lacks = f"leaves out: {', '.join(found.instead_of)}" if found.instead_of else "is missing"
    return f"the model's own chat template {lacks}"


def _look(
    model: str,
    train: str,
    said: Mapping[str, Any],
    disable: tuple[str, ...],
    objective: str | None,
    *,
    named_records: bool,
) -> tuple[StartingPoint | None, Mapping[str, Any] | None, str]:
    """Returns what a look at the model and the records says, what it guessed of their columns, and what hindered it.

    Raises:
        DataError: Records that somebody named can't be used.
        RecipeError: What is said of them is no entry of `data.train`.
        RequestError: An objective is asked for, and can't be looked at with them.
    """
    from graftkit.flow.records.starting_point import find_starting_point, numbers_beside_texts

    with output_to_stderr():
        host = open_host(disable)
        reference = anchored_reference(model, Path.cwd())
        guess: Mapping[str, Any] | None = None
        try:
            try:
                guess = numbers_beside_texts(host, train, said)
                found = find_starting_point(host, reference, train, {**said, **(guess or {})}, objective)
            except UnknownFormatError as error:
                guess = error.suggested
                if guess is None:
                    raise
                found = find_starting_point(host, reference, train, {**said, **guess}, objective)
        except (DataError, RecipeError) as error:
            if not named_records and objective is None:
                return None, None, f"not looked at: {error}"
            if error.hint and "{path:" in error.hint:
                error.hint += " --train takes such a mapping, too, in single quotes."
            if error.hint and "objective: " in error.hint and "--objective" not in error.hint:
                error.hint += " --objective says that here."
            if error.hint:
                error.hint = error.hint.replace("Leave out `objective`", "Leave out --objective")
            raise
        except RequestError as error:
            if objective is not None:
                raise
            return None, None, f"not looked at: {error}"
    return found, guess, found.trouble


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


def _numbers(found: StartingPoint) -> dict[str, int | str]:
    return {
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


def _told(found: StartingPoint) -> Iterator[str]:
    from graftkit.flow.records.suggest_format import unread_columns

    for dataset in found.datasets[:5]:
        left = f"; not read: {unread_columns(dataset.left, dataset.known)}" if dataset.left else ""
        reading = f": {one_line(dataset.reading)}" if dataset.reading else ""
        yield f"{one_line(str(dataset.source))}: read by {dataset.reader_name} as {dataset.format_name}{reading}{left}"
    if found.left_out:
        yield _left_out(found)
    if told := _OBJECTIVES.get(found.objective, ("", ""))[1]:
        yield told + (_OF_PAIRS if found.objective == "regression" and found.pairs else "")
    if found.checked < found.records:
        yield f"checked are {found.checked:,} of the records, evenly spread; toolkit plan checks all of them"
    steps = counted(found.steps, "step")
    yield f"{counted(found.records, 'record')}, about {steps} of {counted(found.tokens_per_step, 'token')}"


def _left_out(found: StartingPoint) -> str:
    return f"the model's chat template leaves out: {', '.join(found.left_out)}"


def _quoted(value: Any) -> str:
    """Returns a scalar as YAML writes it, on one line: a text bare where that means the same and shows all of it."""
    import yaml

    if isinstance(value, str) and value != one_line(value):
        return yaml.safe_dump(value, default_style='"', width=math.inf).strip()
    return yaml.safe_dump(value, allow_unicode=True, width=math.inf).removesuffix("...\n").strip()
