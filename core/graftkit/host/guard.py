"""What every call of core's into a plugin goes through, so that a plugin's code changes nothing for anybody else."""

from __future__ import annotations

import copyreg
import functools
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import Any, ClassVar

from graftkit.errors import GraftkitError, PluginCallError
from graftkit.host.process_state import ProcessState
from graftkit.host.records import PluginRecord

__all__ = ["brief", "guarded", "guarded_class", "listed"]

_inside: ContextVar[PluginRecord | None] = ContextVar("inside", default=None)
"""The plugin whose code is running."""


@contextmanager
def guarded(plugin: PluginRecord, what: str) -> Iterator[None]:
    """Lets a plugin's code run: what it prints goes to standard error, and what it changes is put back.

    What it changed, and what it warns of, is kept in `plugin.notices`. Whatever it raises is raised.

    Args:
        plugin: Whose code it is.
        what: What of it is called, such as "its import".
    """
    if _inside.get() is plugin:
        yield
        return
    token, state, streams = _inside.set(plugin), ProcessState(), _Streams(plugin, what)
    try:
        yield
    finally:
        _inside.reset(token)
        streams.leave()
        changed = state.put_back()
        if changed:
            plugin.report(f"{what} changed {listed(changed)}, which core put back")


class _Streams:
    """Has what is printed go to standard error, and keeps the warnings that are shown, from now on.

    Calls may begin and end in several threads in any order: what one put aside is handed to the one after it where
    that still goes on.

    Args:
        plugin: Whose code runs.
        what: What of it.
    """

    _open: ClassVar[list[_Streams]] = []
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, plugin: PluginRecord, what: str) -> None:
        self._plugin, self._what = plugin, what
        with self._lock:
            self._open.append(self)
            self._former = sys.stdout, warnings.showwarning
            sys.stdout, warnings.showwarning = sys.stderr, self._show

    def leave(self) -> None:
        """Puts both back as they were before."""
        with self._lock:
            place = self._open.index(self)
            self._open.remove(self)
            if place < len(self._open):
                self._open[place]._former = self._former
            else:
                sys.stdout, warnings.showwarning = self._former

    def _show(self, message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        """Keeps a warning for the plugin whose code runs in this thread, or else the one that was called last."""
        running = _inside.get()
        heard = next((each for each in reversed([*self._open]) if each._plugin is running), self)
        heard._plugin.report(f"{heard._what} warned: {category.__name__}: {message}", warning=True)


def guarded_class(cls: type, plugin: PluginRecord, what: str) -> type:
    """Returns a class like `cls` whose public methods are each called under guard.

    A method that would end the program, or raises any other `BaseException` but `KeyboardInterrupt`, raises a
    `PluginCallError`; to another exception a note is added that names the plugin.

    Args:
        cls: The class of a provider.
        plugin: The plugin that offers it.
        what: What the provider is called, such as "quantizer 'nf4'".
    """
    members = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    methods = {
        name: _guarded_method(value, plugin, f"{name}() of its {what}")
        for name, value in members.items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }

    own: Any = cls

    def reduce(self: Any, protocol: Any) -> Any:
        """Pickles an instance as one of its own class, which another process finds by its name."""
        found = own.__reduce_ex__(self, protocol)
        if isinstance(found, str):
            return found
        function, arguments, *rest = found
        maker = _new if function is copyreg.__newobj__ else cls if function is same else function  # type: ignore[attr-defined]
        return (maker, tuple(cls if argument is same else argument for argument in arguments), *rest)

    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "__slots__": ()}
    same = type(cls)(cls.__name__, (cls,), {**body, **methods, "__reduce_ex__": reduce})
    return same


def _new(cls: type, *arguments: Any) -> Any:
    """Makes an instance that pickle then fills."""
    return cls.__new__(cls, *arguments)


def _guarded_method(function: Callable[..., Any], plugin: PluginRecord, what: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            with guarded(plugin, what):
                return function(self, *arguments, **named)
        except (GraftkitError, KeyboardInterrupt):
            raise
        except Exception as error:
            note = f"{plugin.label} raised it: {what}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise
        except BaseException as error:
            raise PluginCallError(f"{what} raised {brief(error)}", where=plugin.label) from error

    return call


def brief(error: BaseException) -> str:
    """Returns an error's kind and text on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence lists them: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
