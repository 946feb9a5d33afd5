"""Loads plugins under guard and asks each what it offers."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

from graftkit.arguments import check_flags, check_several, check_texts
from graftkit.errors import PluginError
from graftkit.host.discovery import (
    disabled_by_environment,
    discover,
    enabled_by_environment,
    import_seconds_by_environment,
    strict_by_environment,
)
from graftkit.host.guard import brief, guarded, is_stop, remember
from graftkit.host.hooks import Hooks
from graftkit.host.records import PluginRecord, RegisteredProvider
from graftkit.host.registry import BUILT_IN, Registry
from graftkit.host.time_limit import PluginTimeout, time_limit
from graftkit.interfaces.kinds import KINDS
from graftkit.interfaces.provider import Provider
from graftkit.suggest import known_names

if TYPE_CHECKING:
    import click

    from graftkit.interfaces.config import ProviderConfig

__all__ = ["PluginHost"]

_COMMANDS = "graftkit_commands"


class _HalfImported(PluginError):
    """An import was ended in the middle of a library's, so that this process can't go on with that library."""


class PluginHost:
    """A set of plugins. There is no global one: two hosts with different plugins live in one process.

    Every call into a plugin is guarded: what it prints goes to standard error; torch's default dtype, threads and
    random state, the environment, the current folder and the like are put back; `notices` names who changed or warned
    of what. An import has a time limit, see `graftkit.host.discovery.IMPORT_SECONDS`.

    Args:
        autoload: Whether to load what installed distributions announce; None asks the environment
            (`GRAFTKIT_PLUGIN_AUTOLOAD`).
        plugins: Modules or objects with hook implementations, registered besides.
        disable: Names of plugins or distributions to leave out, besides `GRAFTKIT_DISABLE_PLUGINS`.
        disable_of_run: Those that the recipe of a run left out which is looked at again; some may be gone by now.
        strict: Whether any plugin's failure is an error at once; None asks `GRAFTKIT_STRICT_PLUGINS`.
        builtins_only: Whether other distributions' plugins are left out, whatever is installed; those in `plugins` are
            registered all the same.

    Raises:
        PluginError: A plugin failed, and `strict` holds; or `disable` names one that isn't there.
        RequestError: An argument is of another type.
    """

    def __init__(
        self,
        *,
        autoload: bool | None = None,
        plugins: Sequence[object] = (),
        disable: Iterable[str] = (),
        disable_of_run: Iterable[str] = (),
        strict: bool | None = None,
        builtins_only: bool = False,
    ) -> None:
        self._hooks = Hooks()
        check_flags("autoload", "strict", autoload=autoload, strict=strict, builtins_only=builtins_only)
        check_several(plugins, "plugins", "plugins", "Give a list of modules or objects with hooks.")
        asked = {_normalized(name): name for name in check_texts(disable, "disable")}
        self._of_run = {*map(_normalized, check_texts(disable_of_run, "disable_of_run"))}
        self._disabled = {*asked, *self._of_run, *map(_normalized, disabled_by_environment())}
        self._strict = strict_by_environment() if strict is None else strict
        self._import_seconds = import_seconds_by_environment()
        self._taken: set[str] = set()
        self._commands: list[tuple[PluginRecord, click.Command]] = []
        self.records: list[PluginRecord] = []
        self.registry = Registry(self.records)
        if enabled_by_environment() if autoload is None else autoload:
            found = discover()
            if builtins_only:  # by their names, so that the processes that prove exports leave them out, too
                others = {record.distribution for record, _ in found} - {BUILT_IN, ""}
                self._disabled |= {*map(_normalized, others)}
            for record, entry in found:
                self._admit(record, entry.load)
        for plugin in plugins:
            self._admit(_record_of(plugin), partial(_given, plugin))
        self._refuse_unknown(asked)

    @property
    def hook(self) -> Any:
        """The hooks, to broadcast to every active plugin."""
        return self._hooks.hook

    def commands(self, plugin: PluginRecord | None = None) -> list[click.Command]:
        """Returns the commands that one plugin offers, or all do."""
        return [command for record, command in self._commands if plugin in (None, record)]

    def hooks_of(self, plugin: PluginRecord) -> list[str]:
        """Returns the hooks that a plugin's module implements."""
        return self._hooks.implemented(plugin)

    @property
    def disabled(self) -> list[str]:
        """The names that were asked to be left out, as package indexes compare them."""
        return sorted(self._disabled)

    def leaves_out(self, name: str) -> bool:
        """Tells whether a plugin was asked to be left out, by its name, its distribution's or a provider's of it."""
        name = name.partition(":")[0]
        names = {_normalized(name), _normalized(f"graftkit-{name}")}
        return any(record.status == "disabled" and names & _names_of(record) for record in self.records)

    def check_left_out(self, names: Iterable[str], where: str) -> None:
        """Makes sure that none of these plugins is in use, as whoever makes a host decides alone who is.

        Args:
            names: Plugins or distributions that a recipe leaves out.
            where: The recipe's key, for errors.

        Raises:
            PluginError: One is in use, or there is none of that name, and none was asked to be left out.
        """
        for name in names:
            named = [record for record in self.records if _normalized(name) in _names_of(record)]
            if any(record.status == "active" for record in named):
                raise PluginError(
                    f"the plugin '{name}' is to be left out, and the host that was handed in has it",
                    where=where,
                    hint=f"Make the host without it: PluginHost(disable=[{name!r}]).",
                )
            if not named and _normalized(name) not in self._disabled:
                raise self._unknown(name, where)

    @property
    def disabled_of_run(self) -> list[str]:
        """The plugins that are there and that the run which is looked at left out, as errors name them."""
        return [record.label for record in self.records if self._of_run & _names_of(record)]

    @property
    def notices(self) -> list[str]:
        """What plugins warned of, and what they changed for others: each names its plugin and version."""
        return [notice for record in self.registry.plugins for notice in record.notices]

    @property
    def warnings(self) -> list[str]:
        """What plugins warned of: each names its plugin and version."""
        return [warning for record in self.registry.plugins for warning in record.warnings]

    def take_notices(self) -> list[str]:
        """Returns the notices that nobody has taken yet."""
        new = [notice for notice in self.notices if notice not in self._taken]
        self._taken.update(new)
        return new

    def broadcast(self, hook: str, **arguments: Any) -> None:
        """Calls a lifecycle hook of every plugin in turn; see `Hooks.broadcast`.

        Raises:
            HookError: A plugin's implementation raised; the error names the first, and its notes the others.
        """
        self._hooks.broadcast(hook, **arguments)

    def hooks_of_run(self, callbacks: Iterable[tuple[RegisteredProvider, ProviderConfig]]) -> Hooks:
        """Makes a run's callbacks, and returns them together with every plugin's own hooks.

        Args:
            callbacks: Each with its fields; an object of each is made, for this run alone.

        Raises:
            PluginError: One can't be imported or made, or implements no hook, or one that there isn't.
        """
        hooks = Hooks()
        for plugin, record in self._hooks:
            hooks.add(plugin, record, _key_of(record))
        for registered, config in callbacks:
            made = self.registry.create_unguarded(registered, config)  # `Hooks` guards what it calls
            try:
                hooks.add(made, registered.plugin, f"callback {registered.qualified_name}")
            except (ValueError, pluggy.PluginValidationError) as error:
                message = f"callback '{registered.provider.name}' can't be used: {brief(error)}"
                raise PluginError(message, where=registered.plugin.label) from None
        return hooks

    def _admit(self, record: PluginRecord, load: Callable[[], object]) -> None:
        self.records.append(record)
        if _names_of(record) & self._disabled:
            record.status, record.reason = "disabled", "disabled by request"
        if record.status == "active":
            try:
                self._register(record, load)
            except _HalfImported:
                raise
            except BaseException as error:
                if is_stop(error):
                    raise
                record.status, record.reason = "failed", brief(error)
                self._refuse_if_strict(record, error)
        elif record.status == "failed":
            self._refuse_if_strict(record, None)

    def _refuse_unknown(self, asked: Mapping[str, str]) -> None:
        """Refuses to leave out what isn't there: a misspelt name would leave the plugin in, unnoticed."""
        known = {name for record in self.records for name in _names_of(record)}
        for name, said in asked.items():
            if name not in known:
                raise self._unknown(said)

    def _unknown(self, name: str, where: str = "") -> PluginError:
        known = {known for record in self.records for known in _names_of(record)}
        return PluginError(f"there is no plugin '{name}' to leave out", where=where, hint=known_names(name, known))

    def _refuse_if_strict(self, record: PluginRecord, error: BaseException | None) -> None:
        if self._strict:
            raise PluginError(
                f"failed to load: {record.reason}",
                where=record.label,
                hint="GRAFTKIT_STRICT_PLUGINS makes this fatal; mend or uninstall the plugin, or disable it.",
            ) from error

    def _register(self, record: PluginRecord, load: Callable[[], object]) -> None:
        plugin = self._import(record, load)
        record.file = _file_of(plugin)
        self._hooks.add(plugin, record, _key_of(record))
        try:
            providers = [
                RegisteredProvider(kind, _provider(spec.hook, item), record)
                for kind, spec in KINDS.items()
                for item in self._ask(record, plugin, spec.hook)
            ]
            commands = [_command(item) for item in self._ask(record, plugin, _COMMANDS)]
        except BaseException:
            self._hooks.remove(plugin)
            raise
        self.registry.extend(providers)
        self._commands.extend((record, command) for command in commands)

    def _import(self, record: PluginRecord, load: Callable[[], object]) -> object:
        """Imports a plugin within the time limit.

        Raises:
            PluginTimeout: It took longer.
            PluginError: It took longer, and what was being imported can't be imported again by anybody.
        """
        advice = f"GRAFTKIT_PLUGIN_IMPORT_SECONDS gives it more time, {_leaving_out(record)}."
        modules, start = set(sys.modules), time.perf_counter()
        if record.distribution:  # what a program hands over lies in its own modules
            remember(record.value.partition(":")[0], record)
        try:
            limit = time_limit(record.label, "its import", self._import_seconds, advice, end=True)
            with limit, guarded(record, "its import"):
                return load()
        except PluginTimeout as error:
            halves = {name.partition(".")[0] for name in sys.modules.keys() - modules} - sys.modules.keys()
            if halves - {record.value.partition(":")[0].partition(".")[0]}:
                message = f"{error}, in the middle of importing {', '.join(sorted(halves))}"
                raise _HalfImported(message, where=record.label, hint=advice) from None
            raise
        finally:
            record.import_seconds = time.perf_counter() - start

    def _ask(self, record: PluginRecord, plugin: object, hook: str) -> list[object]:
        """Returns what this plugin alone offers through one hook."""
        caller = self._hooks.caller_of(plugin, hook)
        if caller is None:
            return []
        advice = f"GRAFTKIT_PLUGIN_IMPORT_SECONDS gives it more time, {_leaving_out(record)}."
        limit = time_limit(record.label, f"its hook {hook}", self._import_seconds, advice, end=True)
        with limit, guarded(record, f"its hook {hook}"):
            answers = caller() or [None]  # pluggy leaves a None out: somebody forgot to return
        return [item for answer in answers for item in _listed(hook, answer)]


def _normalized(name: str) -> str:
    """Returns a name as package indexes compare it: `My_Plugin` is `my-plugin`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names_of(record: PluginRecord) -> set[str]:
    """Returns the names by which a plugin is left out, as package indexes compare them."""
    return {_normalized(record.name), _normalized(record.distribution)} - {""}


def _key_of(record: PluginRecord) -> str:
    return f"{record.distribution}:{record.name}" if record.distribution else record.name


def _leaving_out(record: PluginRecord) -> str:
    return f"GRAFTKIT_DISABLE_PLUGINS={record.distribution or record.name} leaves it out"


def _given(plugin: object) -> object:
    return plugin


def _listed(hook: str, offered: object) -> list[object]:
    if not isinstance(offered, list):
        found = "None" if offered is None else type(offered).__name__
        raise TypeError(f"{hook} returned {found}, not a list")
    return offered


def _provider(hook: str, item: object) -> Provider:
    if not isinstance(item, Provider):
        raise TypeError(f"{hook} returned a list that holds {item!r}, which is no Provider")
    return item


def _command(item: object) -> click.Command:
    import click

    if not isinstance(item, click.Command):
        raise TypeError(f"{_COMMANDS} returned a list that holds {item!r}, which is no click.Command")
    return item


def _record_of(plugin: object) -> PluginRecord:
    name = getattr(plugin, "__name__", None) or type(plugin).__name__
    return PluginRecord(str(name), "", "", str(name))


def _file_of(plugin: object) -> str:
    module = plugin if hasattr(plugin, "__file__") else sys.modules.get(type(plugin).__module__)
    return str(getattr(module, "__file__", "") or "")
