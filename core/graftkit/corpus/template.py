"""Renders chat templates, sandboxed, as `transformers` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from graftkit.errors import DataError, ModelError
from graftkit.store.fingerprint import fingerprint

__all__ = ["ChatTemplate"]

MAX_RENDERED = 64 << 20


class _Generation(Extension):
    """Reads `{% generation %}` blocks, which mark the assistant's text, as if they were not there."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A tokenizer's template.

    Args:
        source: The Jinja source.
        tokens: The names that templates use for special tokens: bos_token, eos_token, ...
        today: The day that `strftime_now` writes, at its first moment; when left out, the moment of the rendering.

    Attributes:
        fingerprint: A sha256, in hex, of everything that decides what a conversation becomes: of the day only where the
            template asks for it.

    Raises:
        ModelError: The source is no template.
    """

    def __init__(self, source: str, tokens: Mapping[str, str], today: date | None = None) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _clock(today)
        self._tokens = dict(tokens)
        try:
            self._template = environment.from_string(source)
            names = {name.name for name in environment.parse(source).find_all(nodes.Name)}
        except TemplateError as error:
            raise ModelError(f"the chat template can't be read: {error}", where="chat_template") from None
        day = [today.isoformat()] if today and "strftime_now" in names else []
        self.fingerprint = fingerprint([source, self._tokens, *day])

    def render(self, messages: Sequence[Mapping[str, str]], where: str, *, add_generation_prompt: bool = False) -> str:
        """Lays out a conversation.

        Raises:
            DataError: The template refuses it, for example for the order of its roles.
        """
        try:
            text = self._template.render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **self._tokens
            )
        except Exception as error:
            raise DataError(f"the chat template refuses it: {error}", where=where) from None
        if len(text) > MAX_RENDERED:
            raise DataError("the chat template makes a text of over 64 MB of it", where=where)
        return text


def _clock(today: date | None) -> Callable[[str], str]:
    def strftime_now(format: str) -> str:
        return (datetime.combine(today, time()) if today else datetime.now()).strftime(format)

    return strftime_now


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
