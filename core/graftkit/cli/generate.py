"""`toolkit generate`: tries a run, an export, an adapter, a model's folder or a GGUF file."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from graftkit.cli.chat import converse
from graftkit.cli.options import adapter_base, adapter_options, disable_option, host_of_run, json_option, offline_option
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.tables import side_by_side
from graftkit.cli.terminal import Styled, console, is_terminal, json_line, say, say_answer
from graftkit.errors import RequestError, named
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.visible import further_lines_indented

if TYPE_CHECKING:
    from graftkit.flow.answering.reload import Reply
    from graftkit.flow.answering.reloaded_head import HeadModel
    from graftkit.flow.generate import Answer, Asked, Turn
    from graftkit.flow.preparation.plan_adapter import TokenizerOf

__all__ = ["command"]

_MOST_BYTES = 16 << 20


_MARK = "\ufeff"
"""What some editors begin a file with, to say that it is UTF-8."""

_COLUMNS = 100
"""Columns that a terminal has at least where two answers stand side by side."""


class NumberRange(click.FloatRange):
    """A range that NaN, which is neither below nor above it, does not lie in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is no number.", param, ctx)
        return found


@click.command("generate")
@click.argument("source", metavar="SOURCE")
@click.argument("prompt", required=False)
@click.option("--system", help="The system message; the one that all training records share when left out.")
@click.option(
    "--tools",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON file with a list of the functions that may be called; those that all training records share when left "
    "out.",
)
@click.option("--plain/--chat", "--raw/", default=None, help="Continue the text as it is, or ask in the chat template.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Tokens at most.")
@click.option("--temperature", type=NumberRange(0, 100), help="Draw tokens; 0 takes the likeliest one.")
@click.option("--top-p", type=NumberRange(0, 1), help="Draw from the likeliest tokens with this share together.")
@click.option("--top-k", type=click.IntRange(0), help="Draw from so many of the likeliest tokens; 0 for all.")
@click.option("--min-p", type=NumberRange(0, 1), help="Leave out tokens below this share of the likeliest one's.")
@click.option("--repetition-penalty", type=NumberRange(0.001, 100), help="Above 1: say less of what was there.")
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    show_default=True,
    help="The same seed draws the same tokens.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Lines of standard input that are answered side by side, by the likeliest tokens.",
)
@adapter_options
@click.option("--compare", is_flag=True, help="Show what the base model answers, too.")
@disable_option
@offline_option
@json_option
def command(
    source: str,
    prompt: str | None,
    system: str | None,
    tools: Path | None,
    plain: bool | None,
    max_new_tokens: int,
    seed: int,
    batch_size: int,
    base: str | None,
    quantizer: str | None,
    tokenizer: TokenizerOf | None,
    compare: bool,
    disable: tuple[str, ...],
    as_json: bool,
    **sampling: float | None,
) -> None:
    """Answer a PROMPT with a run, an export, an adapter of peft's, a model's folder or a GGUF file.

    A classifier says how likely each label of the text is, a regression its number, a reward model its reward, of a
    JSON list of messages, too, a model that tags words the entities of the text, and an encoder what the mask tokens in
    it stand for.

    Without a PROMPT: a conversation on a terminal, else the answer to each line of standard input. The likeliest token
    is taken, unless a sampling option is given; those left out are then as the model's generation_config.json says.
    What was trained on plain prompts is given a plain prompt, unless --chat says otherwise.
    """
    from graftkit.flow.answering.reload import reload_any, unfinished
    from graftkit.flow.answering.reload_base import reload_base
    from graftkit.flow.answering.reloaded_head import HeadModel
    from graftkit.flow.generate import Asking, Turn

    on = adapter_base(base, quantizer, tokenizer)
    asking = Asking(system, None if tools is None else _read_tools(tools), plain, max_new_tokens, seed, sampling)
    asking.check(batch_size)
    with output_to_stderr():
        host = host_of_run([source], disable)
        model = reload_any(source, host, on)
        if isinstance(model, HeadModel):
            _refuse_for_a_head()
        without = reload_base(source, model, host, on) if compare and not isinstance(model, HeadModel) else None
    for text in unfinished(Path(source)):
        click.echo(further_lines_indented(f"note: {text}"), err=True)
    if isinstance(model, HeadModel):
        _judge(model, prompt, as_json)
        return
    if plain is None and model.prompts == "plain" and not system and model.tokenizer.chat_template is not None:
        click.echo("Trained on plain prompts, and so asked without the chat template; --chat asks in it.", err=True)
    talks = prompt is None and sys.stdin.isatty() and is_terminal() and not as_json
    with named(source):
        if talks and without is None:
            converse(asking.of(model), remembers=not (model.asks_plainly if plain is None else plain))
            return
        lines = iter([(source, prompt)] if prompt is not None else _lines())
        while texts := list(islice(lines, batch_size)):
            asked, beside = asking.of(model), asking.of(without) if without else None
            if len(texts) == 1:
                [(where, text)] = texts
                with named(where):
                    _say(text, asked, beside, as_json)
                continue
            for answer in _answered(asked, beside, [Turn(text, where=where) for where, text in texts]):
                _say_whole(answer, as_json)


def _answered(asked: Asked, beside: Asked | None, turns: Sequence[Turn]) -> Iterator[Answer]:
    """Yields the answers to some prompts; of those of which one can't be answered to the ones before it.

    Raises:
        RequestError: One can't be answered.
    """
    try:
        yield from asked.answers(turns, beside)
    except RequestError as error:
        where = error.where
        before = list(takewhile(lambda turn: turn.where != where, turns))
        if 0 < len(before) < len(turns):
            yield from asked.answers(before, beside)
        raise


_OF_A_HEAD = frozenset({"source", "prompt", "base", "quantizer", "tokenizer", "offline", "disable", "as_json"})
"""What a model with a head is asked with: it writes no text, so there is nothing to draw."""


def _refuse_for_a_head() -> None:
    """Refuses options that say how a language model answers.

    Raises:
        RequestError: One is given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in _OF_A_HEAD and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise RequestError(
                f"{parameter.opts[0]}: the model judges texts and writes none", hint="Leave the option out."
            )


def _judge(model: HeadModel, prompt: str | None, as_json: bool) -> None:
    """Says what a model with a head says of a text, or of each line."""
    from graftkit.flow.judge import ONE_OF_TWO

    if prompt is None and sys.stdin.isatty() and is_terminal() and not as_json:
        converse(lambda text, _: model.judge(text), remembers=False)
        return
    told = not model.pairs
    for where, text in [("", prompt)] if prompt is not None else _lines():
        with named(where):
            found = model.judge(text)
        if not told and model.pair_in(text) is None:
            click.echo(f"note: {ONE_OF_TWO}", err=True)
            told = True
        if as_json:
            click.echo(json_line({"prompt": text, **found.facts}))
        else:
            say_answer(found.text)
            say([""])


def _say(text: str, tuned: Asked, base: Asked | None, as_json: bool) -> None:
    """Says the answer to a prompt, or both."""
    if as_json:
        click.echo(json_line(tuned.answer(text, base).to_json()))
    elif base is None:
        _stream(tuned(text))
    elif _stands_side_by_side():
        replies = base(text), tuned(text)
        for reply in replies:
            list(reply)
        side_by_side(("base", "tuned"), [reply.text for reply in replies])
    else:
        for name, ask in (("base", base), ("tuned", tuned)):
            say([Styled(f"{name}:", "bold")])
            _stream(ask(text))


def _stands_side_by_side() -> bool:
    """Tells whether there is room for two answers beside each other."""
    return is_terminal() and console().width >= _COLUMNS


def _say_whole(answer: Answer, as_json: bool) -> None:
    """Says an answer that is there, or both."""
    if as_json:
        click.echo(json_line(answer.to_json()))
        return
    texts = {"base": answer.base.answer, "tuned": answer.answer} if answer.base else {"": answer.answer}
    if answer.base and _stands_side_by_side():
        side_by_side(list(texts), list(texts.values()))
        return
    for name, text in texts.items():
        if name:
            say([Styled(f"{name}:", "bold")])
        say_answer(text)
        say([""])


def _stream(reply: Reply) -> None:
    for piece in reply:
        say_answer(piece)
    say([""])


def _read_tools(path: Path) -> list[dict[str, Any]]:
    """Reads descriptions of functions, as chat templates take them.

    Raises:
        RequestError: They can't be read, or are no list of JSON objects.
    """
    try:
        tools = parse_json(read_regular(path, _MOST_BYTES), unicode=True)
    except (OSError, ValueError) as error:
        raise RequestError(f"the tools can't be read: {error}", where=str(path)) from None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RequestError("tools are a JSON list of objects", where=str(path))
    return tools


def _lines() -> Iterable[tuple[str, str]]:
    """Yields standard input line by line, whatever system wrote it, and says in the end how many lines were blank.

    Yields:
        Which line it is, for errors, and the line.
    """
    typed, blank = sys.stdin.isatty(), 0
    if typed:
        click.echo("A prompt a line; Ctrl-D ends.", err=True)
    for number, line in enumerate(sys.stdin, 1):
        text = line.removesuffix("\n").removesuffix("\r")
        text = text.removeprefix(_MARK) if number == 1 else text
        if text.strip():
            yield f"standard input:{number}", text
        else:
            blank += 1
    if blank and not typed:
        click.echo(f"note: blank lines have no answer: {blank:,} of them", err=True)
