"""Finds the tokenizer that a reference means: one in a folder or file of its own, or the one that came with a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graftkit.errors import ModelError, PluginError, ProviderError, RequestError
from graftkit.flow.base_files.open_model import fetch_tokenizer, load_tokenizer, open_model, open_tokenizer
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.host.registry import BUILT_IN
from graftkit.interfaces.model_source import BaseModelFiles, TokenizerFiles
from graftkit.interfaces.tokenizer import Tokenizer, TokenizerBackend

__all__ = ["FoundTokenizer", "default_backend", "find_tokenizer"]


@dataclass(frozen=True, slots=True)
class FoundTokenizer:
    """A tokenizer, and who reads it.

    Attributes:
        registered: The backend.
        tokenizer: The tokenizer.
        reference: What was asked for.
        model: The model that it came with, where the reference meant one.
    """

    registered: RegisteredProvider
    tokenizer: Tokenizer
    reference: str
    model: BaseModelFiles | None = None


def find_tokenizer(host: PluginHost, reference: str, use: str | None = None, where: str = "") -> FoundTokenizer:
    """Finds and loads a tokenizer.

    A folder or file that a tokenizer backend accepts is read by it: by the first built-in one that does, of which
    the one for tokenizer.json comes first, or else by that of the one other plugin that does. Anything else is a
    reference to a model. Of one that has to be fetched, only the tokenizer is.

    Args:
        host: The plugins.
        reference: A folder, a file, or a model as `model:` of a recipe names it.
        use: The backend's name, in place of asking them.
        where: The place of the request, for errors.

    Raises:
        ProviderError: No such backend, or several third parties' accept it.
        ModelError: There is nothing that any backend reads, or it is malformed.
    """
    asked = (
        host.registry.providers("tokenizer") if use is None else [host.registry.resolve("tokenizer", use, where=where)]
    )
    if use:
        default_backend(host, asked[0])  # what is the matter with one that was asked for by name is told
    path = Path(reference)
    folder = path if _exists(path) else fetch_tokenizer(host, reference, where)
    registered = _accepting(host, asked, folder, where) if folder else None
    if folder and registered:
        return FoundTokenizer(
            registered, default_backend(host, registered).load(folder), reference, _model_in(host, folder)
        )
    if folder and folder != path:
        raise ModelError("it came without a tokenizer that a backend reads", where=reference)
    files, model = _opened(host, reference, use, where)
    registered = host.registry.resolve("tokenizer", use or files.tokenizer_backend, where=where)
    return FoundTokenizer(registered, load_tokenizer(files, default_backend(host, registered)), reference, model)


def default_backend(host: PluginHost, registered: RegisteredProvider) -> TokenizerBackend:
    """Makes a backend as it is without options, which only training asks for.

    Raises:
        PluginError: What it requires is not installed, or it can't be made.
    """
    host.registry.resolve("tokenizer", registered.qualified_name)  # tells what to install
    return _unchecked(host, registered)


def _unchecked(host: PluginHost, registered: RegisteredProvider) -> TokenizerBackend:
    config = host.registry.config_class(registered)
    backend: TokenizerBackend = host.registry.create(registered, config() if registered.provider.config else None)
    return backend


def _accepting(
    host: PluginHost, providers: Sequence[RegisteredProvider], path: Path, where: str
) -> RegisteredProvider | None:
    """Asks built-in backends first, then the others.

    Of one plugin's backends the first that accepts it is taken: a plugin knows its own order.
    """
    for built_in in (True, False):
        group = [registered for registered in providers if (registered.plugin.distribution == BUILT_IN) is built_in]
        accepting = [registered for registered in group if _accepts(host, registered, path)]
        if len({id(registered.plugin) for registered in accepting}) > 1 and not built_in:
            names = " and ".join(f"'{registered.qualified_name}'" for registered in accepting)
            raise ProviderError(f"{names} could both read '{path}'", where=where, hint="Say which with `use`.")
        if accepting:
            return accepting[0]
    return None


def _accepts(host: PluginHost, registered: RegisteredProvider, path: Path) -> bool:
    try:
        return _unchecked(host, registered).accepts(path)
    except PluginError:  # a broken plugin, or one that lacks something, stands in nobody's way
        return False


def _opened(
    host: PluginHost, reference: str, use: str | None, where: str
) -> tuple[TokenizerFiles, BaseModelFiles | None]:
    """Opens a model that has a tokenizer inside; where the model can't be used, its tokenizer alone."""
    try:
        model = open_model(host, reference, where=where)[1]
        return model, model
    except RequestError as error:
        with suppress(RequestError):
            if files := open_tokenizer(host, reference, where):
                return files, None
        path = Path(reference)
        if not _exists(path):
            raise
        who = f"the tokenizer backend '{use}' does not read it" if use else "no tokenizer backend reads it"
        known = ", ".join(registered.provider.name for registered in host.registry.providers("tokenizer"))
        raise ModelError(
            f"{who}, and it is no model either: {error.message}",
            where=f"{where}: {reference}" if where else reference,
            hint=f"Tokenizer backends: {known}.",
        ) from None


def _model_in(host: PluginHost, folder: Path) -> BaseModelFiles | None:
    """Opens the model whose folder a tokenizer lies in, if there is one."""
    if not (folder / "config.json").is_file():
        return None
    with suppress(RequestError):  # its tokenizer can be used all the same
        return open_model(host, str(folder))[1]
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a NUL in it
        return False
