"""Runs the contracts on installed plugins, without a test file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graftkit.errors import PluginError, ProviderError, RecipeError
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.host.registry import BUILT_IN
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.kinds import KINDS
from graftkit.recipe.assignment import read_assignments
from graftkit.recipe.choice import judge
from graftkit.recipe.document import Document
from graftkit.suggest import known_names

__all__ = ["check_plugins", "checked_fields", "find_offers", "without_contract"]


_SECONDS = 4 * 3600
"""How long contracts may take: many times what all built-in ones do on two cores."""


_LONG_TEST = 600
"""Seconds after which pytest shows where a test is that has not ended."""

_ENDED, _ALL = "ended", "all"

_TELLING_HOW_FAR = f'''"""Tells which test began last, whether all have ended, and which are replaced and why."""

from pathlib import Path

left = set()
deviations = []


def tell(line):
    Path(__file__).with_name("{_ENDED}").write_text(line)


def pytest_collection_finish(session):
    left.update(item.nodeid for item in session.items)
    said = [(item.nodeid, getattr(item.function, "deviation", "")) for item in session.items]
    deviations.extend((test.partition("::")[2].replace("::", "."), why) for test, why in said if why)


def pytest_terminal_summary(terminalreporter):
    for test, why in deviations:
        terminalreporter.line(f"{{test}} is not held as its kind does: {{why}}")


def pytest_runtest_logstart(nodeid, location):
    tell(nodeid)


def pytest_runtest_logfinish(nodeid, location):
    left.discard(nodeid)
    if not left:
        tell("{_ALL}")
'''


def find_offers(host: PluginHost, name: str | None) -> list[RegisteredProvider]:
    """Returns the providers of one plugin, by its own, its distribution's or a provider's name; or all third parties'.

    A plugin that offers no provider has none: see `without_contract`.

    Raises:
        PluginError: The plugin is there but not in use.
        ProviderError: Nothing is called that.
    """
    providers = host.registry.providers()
    if name is None:
        return [registered for registered in providers if registered.plugin.distribution != BUILT_IN]
    for record in host.records:
        if name in (record.name, record.distribution) and record.status != "active":
            raise PluginError(f"{record.status}: {record.reason}", where=record.label)
    found = [
        registered
        for registered in providers
        if name
        in (registered.plugin.name, registered.plugin.distribution, registered.provider.name, registered.qualified_name)
    ]
    if not found and not any(name in (record.name, record.distribution) for record in host.records):
        known = {record.distribution or record.name for record in host.records}
        raise ProviderError(f"no plugin and no provider is called '{name}'", hint=known_names(name, known))
    return found


def without_contract(host: PluginHost, name: str | None) -> list[str]:
    """Says of each plugin that offers commands or follows runs by its module's hooks that no contract covers that.

    Args:
        host: The plugins.
        name: One's name, or its distribution's; every third party's where left out.
    """
    told = []
    for record in host.records:
        asked = name in (record.name, record.distribution) if name else record.distribution != BUILT_IN
        if record.status == "active" and asked:
            registration = {spec.hook for spec in KINDS.values()}
            hooks = [hook for hook in host.hooks_of(record) if hook not in registration]
            offered = [f"toolkit {command.name}" for command in host.commands(record)]
            offered += [hook for hook in hooks if hook != "graftkit_commands"]
            if offered:
                told.append(
                    f"{record.label}: {', '.join(offered)}: no contract covers commands, nor hooks of a module: "
                    "their own tests do"
                )
    return told


def checked_fields(
    host: PluginHost, providers: Sequence[RegisteredProvider], assignments: Sequence[str]
) -> dict[str, Any]:
    """Returns the fields that providers are checked with.

    Args:
        host: The plugins.
        providers: Whose contracts are to be run.
        assignments: Each "key=value", the value as YAML writes it.

    Raises:
        RecipeError: An assignment has another form; or there is one provider, without a contract of its own, and it
            can't be made with these fields.
    """
    fields = read_assignments(assignments, "--set")
    if fields and len(providers) != 1:
        raise RecipeError(f"these are fields of one provider, and {len(providers)} are checked", where="--set")
    if len(providers) == 1 and (fields or not providers[0].provider.contract):
        with suppress(PluginError):  # its contract says more of a class that can't be imported
            _check_fields(host.registry.config_class(providers[0]), fields, providers[0])
    return fields


def _check_fields(model: type[ProviderConfig], fields: Mapping[str, Any], registered: RegisteredProvider) -> None:
    place = registered.qualified_name
    try:
        judge(registered, model, fields, Document(dict(fields), place, from_file=False), ())
    except RecipeError as error:
        hint = (
            "Give it the fields that it needs, --set KEY=VALUE; so that nobody has to, a contract in the package names "
            "them as its `options`: Provider(contract=...)."
        )
        error.hint = f"{error.hint}\n{hint}" if error.hint else hint
        raise


def check_plugins(
    providers: Sequence[RegisteredProvider], *, quiet: bool = False, fields: Mapping[str, Any] | None = None
) -> int:
    """Runs every provider's contract with pytest, in a process of its own.

    Args:
        providers: Whose contracts are run.
        quiet: Whether only what fails is shown.
        fields: What each is made with; as its contract says when left out or empty.

    Returns:
        pytest's exit code: 0 when every promise holds.

    Raises:
        PluginError: pytest is not installed, or it took too long.
    """
    if importlib.util.find_spec("pytest") is None:
        raise PluginError("the contracts are run by pytest", hint="Install it: pip install 'graftkit[testing]'")
    with tempfile.TemporaryDirectory(prefix="graftkit-check-") as folder:
        file = Path(folder) / "test_contracts.py"
        file.write_text(contract_module(providers, fields or {}), encoding="utf-8")
        settings = Path(folder) / "pytest.ini"  # else pytest looks for one in the folders around, which are anybody's
        settings.write_text(f"[pytest]\nfaulthandler_timeout = {_LONG_TEST}\n", encoding="utf-8")
        (Path(folder) / "conftest.py").write_text(_TELLING_HOW_FAR, encoding="utf-8")
        command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-c", str(settings)]
        command += ["--rootdir", folder, str(file)]
        command += ["-q"] if quiet else ["-v"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            code = subprocess.run(
                command, check=False, stdin=subprocess.DEVNULL, timeout=_SECONDS, env=environment
            ).returncode
        except subprocess.TimeoutExpired:
            raise PluginError(f"its contracts took longer than {_SECONDS // 60} minutes and were stopped") from None
        if code == 0:
            _refuse_early_end(Path(folder), providers)
        return code


def _refuse_early_end(folder: Path, providers: Sequence[RegisteredProvider]) -> None:
    """Makes sure that all tests have run: what is tested can end pytest's process, as if all were well.

    Raises:
        PluginError: They haven't.
    """
    ended = folder / _ENDED
    lines = ended.read_text(encoding="utf-8").splitlines() if ended.exists() else []
    if not lines or lines[-1] != _ALL:
        labels = dict.fromkeys(registered.plugin.label for registered in providers)
        test = f"{lines[-1].rpartition('::')[2]}, and it" if lines else "the first test, and something"
        message = f"its contract is not kept: the check ended in {test} did not fail"
        raise PluginError(
            message,
            where=", ".join(labels),
            hint="Something in the provider ends the program, such as os._exit() or pytest.exit().",
        )


def contract_module(providers: Sequence[RegisteredProvider], fields: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Returns the text of a test module with a class for each provider."""
    parts = []
    for number, registered in enumerate(providers):
        module, _, name = (registered.provider.contract or KINDS[registered.kind].contract).partition(":")
        label = "".join(word.capitalize() for word in registered.provider.name.split("-"))
        parts.append(
            f"from {module} import {name} as contract_{number}\n\n\n"
            f"class Test{label}{number}(contract_{number}):\n"
            f"    provider = {registered.qualified_name!r}\n" + (f"    options = {dict(fields)!r}\n" if fields else "")
        )
    return "\n\n".join(parts)
