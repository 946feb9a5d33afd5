"""What plugins do in a run: their lifecycle hooks, and what else they were found to have done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from graftkit.errors import Cancelled, HookError, PluginCallError, RequestError
from graftkit.host.guard import listed, naming_plugins, note_once, raised_by
from graftkit.host.hooks import Hooks
from graftkit.host.host import PluginHost
from graftkit.host.process_state import ProcessState
from graftkit.host.records import BUILT_IN, PluginRecord

__all__ = ["RunPlugins"]

LONG_HOOKS = 10.0
"""Seconds that a plugin's lifecycle hooks may take of a run, all together, before that is told at its end."""


class RunPlugins:
    """The plugins of a run.

    Args:
        host: All plugins.
        hooks: What calls their lifecycle hooks and those of the run's callbacks; None where nothing calls them.
        in_use: Those that the run uses and that are not built in, as messages name them.
    """

    def __init__(self, host: PluginHost, hooks: Hooks | None, in_use: Sequence[str]) -> None:
        self._host, self._hooks, self._in_use = host, hooks, ", ".join(in_use)
        self._seconds_before = {id(record): record.hook_seconds for record in host.records}

    def broadcast(
        self, hook: str, around: AbstractContextManager[None] | None, **arguments: Any
    ) -> list[tuple[PluginRecord, Any]]:
        """Calls a lifecycle hook of every plugin and of the run's callbacks.

        Args:
            hook: The hook.
            around: What each call is made in; see `Hooks.broadcast`.
            arguments: What the hook is given.

        Returns:
            What each returned that returned something, with its plugin.

        Raises:
            HookError: One raised.
        """
        return [] if self._hooks is None else self._hooks.broadcast(hook, around=around, **arguments)

    def follow(self, hook: str) -> bool:
        """Tells whether a plugin or a callback implements a lifecycle hook."""
        return self._hooks is not None and self._hooks.is_implemented(hook)

    def found(self) -> list[str]:
        """Returns what plugins were found to do, each time only what was found since."""
        return self._host.take_notices()

    def slow_hooks(self) -> list[str]:
        """Returns whose hooks took long."""
        taken = [
            (record, record.hook_seconds - self._seconds_before.get(id(record), 0.0)) for record in self._host.records
        ]
        return [
            f"{record.label}: its hooks took {took:.0f} s of the run" for record, took in taken if took > LONG_HOOKS
        ]

    def put_back(self, state: ProcessState) -> str:
        """Puts back what code that is called too often to be guarded by itself has changed in the process.

        Args:
            state: The process as it was before.

        Returns:
            What the user should know of that; "" for nothing.
        """
        changed = state.put_back()
        if not changed or not self._in_use:
            return ""
        return f"{listed(changed)} changed, which core put back; in use was {self._in_use}"

    @contextmanager
    def named(self) -> Iterator[None]:
        """Names in errors the plugin whose code raised them, or those that were in use where that can't be told.

        Raises:
            PluginCallError: A plugin's code tried to end the program, where no guard was around it.
        """
        try:
            with naming_plugins():
                yield
        except (RequestError, Cancelled, PluginCallError, HookError):
            raise
        except Exception as error:
            before = _of_hook_before(error)
            if before is not None:
                note_once(error, f"{before.where}: {before.message}")
            culprit = raised_by(error)
            known = culprit is not None and culprit.distribution != BUILT_IN
            if not known and self._in_use and not getattr(error, "where", "").startswith("plugin "):
                note_once(error, f"in use was {self._in_use}")
            raise


def _of_hook_before(error: BaseException) -> HookError | None:
    """Returns the error of a hook that another one came up after, such as that of a folder which is gone by then."""
    former = error.__context__
    while former is not None and not isinstance(former, HookError):
        former = former.__context__
    return former
