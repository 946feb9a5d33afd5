"""Makes pages of templates: data is escaped, what a page would obey is written out, nothing is loaded or run."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from graftkit.report.closed_page import with_policy
from graftkit.report.palette import variables
from graftkit.visible import visible

__all__ = ["cut", "render"]

_TEMPLATES = ("page.html", "macros.html", "report.html", "comparison.html")

MOST_SHOWN = 2000
"""Characters of a text of somebody else's that are shown."""


def render(template: str, **values: Any) -> str:
    """Returns a page.

    Args:
        template: The template's name.
        values: What it shows.
    """
    style = variables() + "\n" + files("graftkit.report").joinpath("page.css").read_text(encoding="utf-8")
    return with_policy(_environment().get_template(template).render(style=Markup(style), **values))


@cache
def _environment() -> Environment:
    """Returns what the templates are compiled in, each once in a process."""
    folder = files("graftkit.report").joinpath("templates")
    environment = Environment(
        autoescape=True,
        finalize=_shown,
        loader=DictLoader({name: folder.joinpath(name).read_text(encoding="utf-8") for name in _TEMPLATES}),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cut"] = cut
    return environment


def cut(text: str) -> str:
    """Returns a text of somebody else's as far as it is shown."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} ... ({len(text):,} characters)"


def _shown(value: Any) -> Any:
    """Writes out what a page would obey in a text, but in what is a part of the page."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
