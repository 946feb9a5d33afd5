"""How a run lays its conversations out: from the recipe, and as manifests say it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from graftkit.corpus.template import ChatTemplate
from graftkit.errors import RecipeError
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.run_manifest import ChatFacts
from graftkit.store.fingerprint import fingerprint
from graftkit.suggest import known_names

__all__ = [
    "chat_facts",
    "chat_options",
    "check_arguments",
    "check_end_of_turn",
    "must_be_passed",
    "options_of",
    "template_hash",
]


_OPTIONS = {
    "template_arguments": "arguments",
    "system": "system",
    "turns": "turns",
    "end_of_turn": "end_of_turn",
    "chat_template": "template",
}
"""The keys of a recipe's `data` that say how conversations are laid out, with the options that they are."""


def chat_options(bound: BoundRecipe, own: ChatOptions | None = None) -> ChatOptions:
    """Returns how a recipe has conversations laid out; as usual where its objective has none laid out.

    Args:
        bound: The recipe.
        own: What holds where it is silent, such as how a model's training had them laid out; as usual when left out.
    """
    if not bound.objective_config.lays_out:
        return own or ChatOptions()
    data = bound.recipe.data
    named = data.chat_template.name if data.chat_template else None
    asked = ChatOptions(data.template_arguments, data.system, data.turns, data.end_of_turn, named)
    if own is None:
        return asked
    said = (option for key, option in _OPTIONS.items() if key in data.model_fields_set)
    return replace(own, **{option: getattr(asked, option) for option in said})


def check_arguments(bound: BoundRecipe, template: ChatTemplate | None) -> None:
    """Refuses arguments that the chat template does not read: they would change nothing.

    Raises:
        RecipeError: There is one.
    """
    for name in chat_options(bound).arguments:
        if template is None or name not in template.variables:
            read = sorted(template.unreserved if template else ())
            raise RecipeError(
                f"the chat template reads no '{name}'" if template else "there is no chat template to give it to",
                where=bound.document.where(("data", "template_arguments", name)),
                hint=known_names(name, read),
            )


def check_end_of_turn(bound: BoundRecipe, tokenizer: Tokenizer) -> None:
    """Refuses an end of turn at which no generation could stop.

    Raises:
        RecipeError: It does not end with a special token.
    """
    end, known = chat_options(bound).end_of_turn, tokenizer.special_tokens
    if end is not None and not end.endswith(tuple(known)):
        raise RecipeError(
            f"data.end_of_turn {end!r} does not end with a special token, at which a generation could stop",
            where=bound.document.where(("data", "end_of_turn")),
            hint=f"The tokenizer's special tokens: {', '.join(sorted(known)[:20]) or 'none'}.",
        )


def chat_facts(options: ChatOptions) -> ChatFacts | None:
    """Returns what a manifest says of how conversations are laid out; None where all is as usual."""
    if not options.facts():
        return None
    arguments = dict(options.arguments)
    said: dict[str, Any] = {name: value for name, value in options.facts().items() if name != "arguments"}
    if arguments:
        said |= {"template_arguments": arguments, "template_arguments_sha256": fingerprint(arguments)}
    return ChatFacts(**said)


def options_of(facts: ChatFacts | None) -> ChatOptions:
    """Returns what `chat_facts` was given."""
    if facts is None:
        return ChatOptions()
    return ChatOptions(facts.template_arguments, facts.system, facts.turns, facts.end_of_turn, facts.template)


def must_be_passed(options: ChatOptions, template: ChatTemplate | None) -> str | None:
    """Says what other programs have to be told that load an export, since no file of a tokenizer holds it.

    Args:
        options: How conversations are laid out.
        template: The chat template that lays them out; None where there are none.
    """
    told = [f"ask for its chat template '{options.template}' (data.chat_template)"] if options.template else []
    if options.arguments:
        names = ", ".join(f"{name}={value!r}" for name, value in options.arguments.items())
        told.append(f"pass {names} to its chat template (data.template_arguments)")
    if options.system == "first_user":
        told.append("put a system message's text before the first user message (data.system)")
    if template and template.takes_content_in_parts:
        told.append(
            'give a content as [{"type": "text", "text": ...}], since its chat template leaves out a plain text'
        )
    return f"no file of an export holds it: another program must {' and '.join(told)}" if told else None


def template_hash(tokenizer: Tokenizer) -> str | None:
    """Returns the sha256, in hex, of the chat template in use."""
    template = tokenizer.chat_template
    return None if template is None else hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
