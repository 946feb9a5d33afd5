"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graftkit.arguments import check_path
from graftkit.cli.streams import output_to_stderr
from graftkit.errors import RecipeError
from graftkit.interfaces.offline import no_network_if
from graftkit.visible import further_lines_indented

if TYPE_CHECKING:
    from graftkit.flow.answering.reload import AdapterBase
    from graftkit.flow.preparation.plan_adapter import TokenizerOf
    from graftkit.host.host import PluginHost

__all__ = [
    "adapter_base",
    "adapter_options",
    "disable_option",
    "host_of",
    "host_of_run",
    "json_option",
    "offline_option",
    "open_host",
    "recipe_arguments",
    "said_of_records",
]

_F = TypeVar("_F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")

disable_option = click.option(
    "--disable-plugin",
    "disable",
    multiple=True,
    metavar="NAME",
    help="Leave out a plugin or all of a distribution's; may be repeated.",
)


def _stay_offline(context: click.Context, option: click.Parameter, offline: bool) -> None:
    context.with_resource(no_network_if(offline))


offline_option = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_stay_offline,
    help="Fetch nothing: what is named as a hub's and not on this machine is refused.",
)


def adapter_options(function: _F) -> _F:
    """Adds what says on which base model an adapter's folder is loaded: `--base`, `--quantizer`, `--tokenizer`."""
    function = click.option(
        "--tokenizer",
        type=click.Choice(["adapter", "base"]),
        help="An adapter's: which tokenizer is taken where its own and its base's differ.",
    )(function)
    function = click.option(
        "--quantizer",
        metavar="NAME",
        help="An adapter's: how its base is stored; when left out, as in training, or as its files are.",
    )(function)
    return click.option(
        "--base", metavar="MODEL", help="An adapter's: its base model; the folder that it names when left out."
    )(function)


def adapter_base(base: str | None, quantizer: str | None, tokenizer: TokenizerOf | None) -> AdapterBase | None:
    """Returns what an adapter is loaded on, as `adapter_options` say it; None where they say nothing.

    Args:
        base: `--base`.
        quantizer: `--quantizer`.
        tokenizer: `--tokenizer`.
    """
    from graftkit.flow.answering.reload import AdapterBase

    return AdapterBase(base, quantizer, tokenizer) if base or quantizer or tokenizer else None


def recipe_arguments(function: _F) -> _F:
    """Adds the recipe's path and `--set`."""
    function = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key, such as training.epochs=3; may be repeated.",
    )(function)
    return click.argument("recipe", type=click.Path())(function)


def open_host(disable: Iterable[str], *, disable_of_run: Iterable[str] = (), strict: bool | None = None) -> PluginHost:
    """Makes the plugins of a command; what they do to others, or warn of, is told on standard error at its end.

    Args:
        disable: Those to leave out.
        disable_of_run: Those that the run left out which the command looks at; that is told, too.
        strict: Whether a plugin's failure is an error; as the environment says where left out.
    """
    from graftkit.host.host import PluginHost

    with output_to_stderr():
        host = PluginHost(disable=disable, disable_of_run=disable_of_run, strict=strict)
    for plugin in host.disabled_of_run:
        click.echo(f"note: {plugin} is left out, as the run's recipe says", err=True)

    def report() -> None:
        for notice in host.take_notices():
            click.echo(further_lines_indented(f"note: {notice}"), err=True)

    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(report)
    return host


def host_of_run(sources: Iterable[str], disable: Iterable[str]) -> PluginHost:
    """Makes the plugins that models are looked at with: without those that a run's recipe leaves out.

    Args:
        sources: The models, of which the first counts that is a run, or an export in one.
        disable: Others to leave out.
    """
    from graftkit.report.run_of_folder import first_run

    run = first_run([check_path(source, "source") for source in sources])
    return open_host(disable, disable_of_run=run.left_out if run else ())


def host_of(recipe: str, overrides: Sequence[str], disable: Sequence[str]) -> PluginHost:
    """Makes the plugins that a recipe is run with: without those that it, or the command line, leaves out."""
    from graftkit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    return open_host([*disable, *loaded.recipe.plugins.disable])


def said_of_records(value: str, option: str) -> tuple[str, dict[str, Any]]:
    """Returns the path of the records, and what else is said of them where it is a mapping.

    Args:
        value: The option's value.
        option: Its name, for errors.

    Raises:
        RecipeError: It begins as a mapping, and is none with a path.
    """
    if not value.startswith("{"):
        return value, {}
    from graftkit.recipe.document import parse_value

    entry = parse_value(value, option)
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise RecipeError("a mapping that says which records has a path", where=option, hint="{path: FILE, ...}")
    return entry.pop("path"), entry
