"""Calls plugins' hooks, each under guard, with an error that names the plugin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import partial
from typing import Any

import pluggy

from graftkit.errors import GraftkitError, HookError
from graftkit.host.guard import brief, guarded, is_stop
from graftkit.host.hookspecs import PROJECT, HookSpecs, registration_hooks
from graftkit.host.records import PluginRecord
from graftkit.host.time_limit import time_limit

__all__ = ["Disturbed", "Hooks"]

_HOOK_SECONDS = 60.0
"""After how long a lifecycle hook that has not come back is named on standard error."""


class Disturbed(Exception):
    """What a hook has done that no hook may do, in words that follow its name."""


def _mend(record: PluginRecord) -> str:
    return f"Mend the plugin, or run without it: --disable-plugin {record.name}"


class Hooks:
    """Objects with hook implementations, in the order in which they were added, and whose they are."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecs)
        self._manager.add_hookspecs(registration_hooks())
        self._records: dict[int, PluginRecord] = {}

    @property
    def hook(self) -> Any:
        """The hooks by their names, as pluggy calls them: all implementations, none under guard."""
        return self._manager.hook

    def __iter__(self) -> Iterator[tuple[object, PluginRecord]]:
        """Yields each object and its plugin."""
        yield from ((plugin, self._records[id(plugin)]) for _, plugin in self._manager.list_name_plugin())

    def add(self, plugin: object, record: PluginRecord, name: str) -> None:
        """Adds an object.

        Args:
            plugin: A module or an instance with functions that are marked with `@hookimpl`.
            record: The plugin that it belongs to.
            name: What no other object here is called.

        Raises:
            ValueError: It is there already, or another of its name; or it implements no hook, which is left out then.
            pluggy.PluginValidationError: A hook is unknown or takes an argument that is; it is left out then.
        """
        if id(plugin) in self._records:
            raise ValueError(f"the same as {self._records[id(plugin)].label}")
        if self._manager.has_plugin(name):
            raise ValueError(f"another plugin is called '{name}'")
        self._records[id(plugin)] = record
        try:
            self._manager.register(plugin, name=name)
            self._manager.check_pending()
            if not self._manager.get_hookcallers(plugin):
                raise ValueError("it implements no hook of graftkit's: is @hookimpl missing?")
        except BaseException:
            self.remove(plugin)
            raise

    def remove(self, plugin: object) -> None:
        """Takes an object out."""
        if self._manager.is_registered(plugin):
            self._manager.unregister(plugin)
        del self._records[id(plugin)]

    def caller_of(self, plugin: object, hook: str) -> Callable[..., Any] | None:
        """Returns what calls a hook of one object alone; None where that does not implement it."""
        caller = self._manager.subset_hook_caller(hook, [p for p in self._manager.get_plugins() if p is not plugin])
        return caller if caller.get_hookimpls() else None

    def is_implemented(self, hook: str) -> bool:
        """Tells whether any object implements a hook."""
        return bool(getattr(self.hook, hook).get_hookimpls())

    def implemented(self, record: PluginRecord) -> list[str]:
        """Returns the hooks that a plugin's own objects implement."""
        callers = [self._manager.get_hookcallers(plugin) or [] for plugin, owner in self if owner is record]
        return sorted({caller.name for found in callers for caller in found})

    def broadcast(
        self, hook: str, *, around: AbstractContextManager[None] | None = None, **arguments: Any
    ) -> list[tuple[PluginRecord, Any]]:
        """Calls a lifecycle hook of every object in turn, in pluggy's order: the last added first.

        One that raises does not keep it from the others.

        Args:
            hook: The hook.
            around: What each call is made in, which may be entered again and again; what it raises is the plugin's.
            arguments: What the hook is given; each implementation has a copy of its own.

        Returns:
            What each returned that returned something, with its plugin.

        Raises:
            HookError: An implementation raised; the error names the first, and its notes the others.
        """
        answers: list[tuple[PluginRecord, Any]] = []
        errors: list[HookError] = []
        for implementation in reversed(getattr(self.hook, hook).get_hookimpls()):
            record = self._records[id(implementation.plugin)]
            caller = self.caller_of(implementation.plugin, hook)
            assert caller is not None
            try:
                call = partial(caller, **{name: copy(given) for name, given in arguments.items()})
                answers += [(record, found) for found in self._call(record, hook, call, around or nullcontext())]
            except HookError as error:
                errors.append(error)
        if errors:
            first, *more = errors
            for other in more:
                first.add_note(f"{other.where}: {other.message}")
            raise first
        return answers

    def _call(
        self, record: PluginRecord, hook: str, call: Callable[[], list[Any]], around: AbstractContextManager[None]
    ) -> list[Any]:
        what, start = f"its hook {hook}", time.perf_counter()
        limit = time_limit(record.label, what, _HOOK_SECONDS, f"--disable-plugin {record.name} runs without it.")
        try:
            with limit, around, guarded(record, what):
                return call()
        except Disturbed as error:
            raise HookError(f"{what} {error}", where=record.label, hint=_mend(record)) from None
        except GraftkitError as error:  # a plugin that raises one says where, and what to do, too
            said = f"{error.where}: {error.message}" if error.where not in ("", record.label) else error.message
            raise HookError(f"{what}: {said}", where=record.label, hint=error.hint or _mend(record)) from error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and is_stop(error):
                raise
            raise HookError(f"{what} raised {brief(error)}", where=record.label, hint=_mend(record)) from error
        finally:
            record.hook_seconds += time.perf_counter() - start
