"""The chat template that a tokenizer has: its only one, or one of several by its name."""

from __future__ import annotations

from datetime import date

from graftkit.corpus.control_tokens import template_tokens
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import ModelError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.tokenizer import NamedTemplates, Tokenizer
from graftkit.suggest import known_names

__all__ = ["chat_template_of"]


def chat_template_of(
    tokenizer: Tokenizer, today: date | None = None, options: ChatOptions | None = None
) -> ChatTemplate | None:
    """Returns the tokenizer's chat template; None where there is none.

    Args:
        tokenizer: The tokenizer.
        today: The date that the template gets from `strftime_now`; None for the day of rendering.
        options: How conversations are laid out with it; as usual when left out.

    Raises:
        ModelError: The template can't be parsed, or there is none of the name that the options say.
    """
    options = options or ChatOptions()
    named = tokenizer.chat_templates if isinstance(tokenizer, NamedTemplates) else {}
    text = tokenizer.chat_template if options.template is None else named.get(options.template)
    if text is None and options.template is not None:
        hint = known_names(options.template, named)
        raise ModelError(f"the tokenizer has no chat template called '{options.template}'", hint=hint)
    if text is None:
        return None
    tokens = template_tokens(tokenizer)
    with_tools = named.get("tool_use") if options.template is None else None
    tool_use = None if with_tools is None else ChatTemplate(with_tools, tokens, today, options)
    return ChatTemplate(text, tokens, today, options, tool_use)
