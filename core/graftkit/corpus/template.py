"""Renders chat templates, sandboxed, as `transformers` does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
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

    Attributes:
        fingerprint: A sha256, in hex, of both.

    Raises:
        ModelError: The source is no template.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._tokens = dict(tokens)
        self.fingerprint = fingerprint([source, self._tokens])
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelError(f"the chat template can't be read: {error}", where="chat_template") from None

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


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
