"""Renders chat templates, sandboxed, as `transformers` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.utils import Namespace

from graftkit.corpus.marks import Marks
from graftkit.corpus.template_budget import LimitError
from graftkit.corpus.template_sandbox import MAX_SOURCE, CountingEnvironment, make_dict
from graftkit.errors import DataError, ModelError, TemplateLimitError
from graftkit.interfaces.chat_options import RESERVED_ARGUMENTS, ChatOptions
from graftkit.store.fingerprint import fingerprint

__all__ = ["ChatTemplate"]

MAX_RENDERED = 64 << 20
MARKS = "graftkit_marks"
"""The environment's attribute with the marks that `{% generation %}` blocks are put between, while there are any."""


_RENDERING = 3
"""Part of the fingerprint; raised when rendering changes, so that stored tokens are not reused."""


_PROBE = "Is this written?"

_UNREADABLE = (TemplateError, SyntaxError, RecursionError, ValueError, MemoryError)
"""What reading a template raises; jinja2 leaves a stray break, and numbers of thousands of digits, to Python."""


_AS_USUAL = ChatOptions()


class _Generation(Extension):
    """Reads `{% generation %}` blocks, which mark the assistant's text, as their text.

    A variable that is set in one ends with it.
    """

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Callable[[], str]) -> str:
        marks: Marks | None = self.environment.__dict__.get(MARKS)
        return caller() if marks is None else f"{marks.block_open}{caller()}{marks.block_close}"


class _Namespace(Namespace):
    """Jinja's `namespace()`, without names that begin with an underscore."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        values = make_dict(*args, **kwargs)
        for name in values:
            _refuse_underscore(name)
        super().__init__(values)

    def __repr__(self) -> str:
        raise SecurityError("a namespace can't be written: write its variables")

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


class ChatTemplate:
    """A tokenizer's template.

    Args:
        source: The Jinja source.
        tokens: The names that templates use for special tokens: bos_token, eos_token, ...
        today: The day that `strftime_now` writes, at its first moment; when left out, the moment of the rendering.
        options: How conversations are laid out with it.
        tool_use: The template of conversations with tools, where that is another one.

    Attributes:
        fingerprint: A sha256, in hex, of everything that decides what a conversation becomes: of the day only where the
            template asks for it.
        source: The Jinja source.
        options: How conversations are laid out with it.
        tool_use: The template of conversations with tools, or None where it is this one.
        literals: The texts that stand in it: what it writes as it is, and its strings.
        words: The texts that it looks for in what it is given, or compares that with.
        attributes: The names that it may look up in messages and tools.

    Raises:
        ModelError: The source is no template.
    """

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str],
        today: date | None = None,
        options: ChatOptions = _AS_USUAL,
        tool_use: ChatTemplate | None = None,
    ) -> None:
        self.source: str = source
        length = len(source) + (len(tool_use.source) if tool_use else 0)
        if length > MAX_SOURCE:
            named = "template has" if tool_use is None else "template and the one for tools have"
            raise ModelError(f"the chat {named} {length:,} characters; at most {MAX_SOURCE:,} are read")
        environment = CountingEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        environment.add_filter("tojson", _to_json)
        environment.globals["raise_exception"] = _raise
        environment.globals["namespace"] = _Namespace
        environment.globals["strftime_now"] = _clock(today)
        self._budget = environment.budget
        self._tokens = dict(tokens)
        self.options, self.tool_use = options, tool_use
        try:
            parsed = environment.parse(source)
            found = list(parsed.find_all(nodes.Node))
            names = {node.name for node in found if isinstance(node, nodes.Name)}
            strings = {node.value for node in found if isinstance(node, nodes.Const) and isinstance(node.value, str)}
            self.literals = frozenset(
                strings.union(node.data for node in found if isinstance(node, nodes.TemplateData))
            )
            self.words = frozenset(_words_looked_for(found))
            self.attributes = strings.union(node.attr for node in found if isinstance(node, nodes.Getattr))
            self._environment = environment
            self._template = environment.from_string(parsed)
        except _UNREADABLE as error:
            reason = error.msg if isinstance(error, SyntaxError) else error
            raise ModelError(f"the chat template can't be read: {reason}") from None
        day = [today.isoformat()] if today and "strftime_now" in names else []
        facts = options.facts()
        more = [*([facts] if facts else []), *([tool_use.fingerprint] if tool_use else [])]
        self.fingerprint: str = fingerprint([_RENDERING, source, self._tokens, *day, *more])

    def taking(self, tools: Sequence[Any]) -> ChatTemplate:
        """Returns the template of conversations with these tools: itself, or the one for their use."""
        return self.tool_use if tools and self.tool_use else self

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that the template reads and does not set itself: those that it may be given."""
        own = frozenset(meta.find_undeclared_variables(self._environment.parse(self.source)))
        return own | self.tool_use.variables if self.tool_use else own

    @property
    def unreserved(self) -> frozenset[str]:
        """Those of `variables` that are not the conversation's, the tokenizer's or Jinja's own."""
        return self.variables - RESERVED_ARGUMENTS

    @cached_property
    def takes_content_in_parts(self) -> bool:
        """Whether it writes a text only as a part of a content's list, as templates of some models with images do."""
        in_parts = [{"type": "text", "text": _PROBE}]
        return "type" in self.attributes and not self._writes(_PROBE) and self._writes(in_parts)

    def _writes(self, content: Any) -> bool:
        try:
            return _PROBE in self.render([{"role": "user", "content": content}], "")
        except DataError:
            return False

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        where: str,
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        marks: Marks | None = None,
    ) -> str:
        """Lays out a conversation.

        Args:
            messages: The messages, with the keys that templates know.
            where: File and line, for errors.
            tools: Descriptions of the functions that may be called, or None.
            add_generation_prompt: Whether the text ends with the beginning of an answer.
            marks: Between which `{% generation %}` blocks are put.

        Raises:
            DataError: The template refuses it, for example for the order of its roles; or, as a `TemplateLimitError`,
                it does more work, or makes larger values, than laying out a conversation takes.
        """
        self._budget.begin(messages, [*(tools or ()), self.options.arguments])
        self._environment.__dict__[MARKS] = marks
        try:
            given = {
                "messages": list(messages),
                "tools": None if tools is None else list(tools),
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                **self._tokens,
            }
            text = self._template.render({**self.options.arguments, **given})
        except LimitError as error:
            raise TemplateLimitError(
                f"the chat template {error}", where=where, hint="Give another one with data.chat_template."
            ) from None
        except Exception as error:
            raise DataError(f"the chat template refuses it: {error}", where=where) from None
        if len(text) > MAX_RENDERED:
            raise TemplateLimitError("the chat template makes a text of over 64 MB of it", where=where)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(
                "the chat template writes half of a surrogate pair, which is no text", where=where
            ) from None
        return text


def _words_looked_for(found: Iterable[nodes.Node]) -> Iterator[str]:
    """Yields the texts that a template compares with, or gives to a method, a filter or a test."""
    for node in found:
        values: Sequence[nodes.Node] = ()
        if isinstance(node, nodes.Compare):
            values = (node.expr, *(operand.expr for operand in node.ops))
        elif isinstance(node, nodes.Call | nodes.Filter | nodes.Test):
            values = node.args or ()
        for value in values:
            if isinstance(value, nodes.Const) and isinstance(value.value, str) and value.value:
                yield value.value


def _clock(today: date | None) -> Callable[[str], str]:
    def strftime_now(format: str) -> str:
        if len(format) > 1000:  # a field of two characters may write 200
            raise LimitError("writes a date of over 1,000 characters")
        return (datetime.combine(today, time()) if today else datetime.now()).strftime(format)

    return strftime_now


def _raise(message: str) -> None:
    raise TemplateError(message)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace's variable can't be called {name!r}: the underscore is not allowed")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`, as in transformers; Jinja's own escapes characters of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
