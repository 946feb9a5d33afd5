"""What every call of core's into a plugin goes through, so that a plugin's code changes nothing for anybody else."""

from __future__ import annotations

import copyreg
import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from functools import partial
from opcode import opmap
from types import FunctionType, TracebackType
from typing import Any, ClassVar

from graftkit.errors import Cancelled, GraftkitError, HookError, PluginCallError, RequestError, text_of
from graftkit.host.process_state import ProcessState
from graftkit.host.records import BUILT_IN, PluginRecord
from graftkit.host.results import GIVES_TOKENIZERS, Part, said_of_model, wrong_with
from graftkit.interfaces.fork_lock import ForkLock, in_forked_process
from graftkit.interfaces.kinds import Kind

__all__ = [
    "brief",
    "end_if_forked",
    "guarded",
    "guarded_class",
    "is_stop",
    "is_watched",
    "listed",
    "naming_plugins",
    "note_once",
    "raised_by",
    "remember",
    "report_of",
    "wrong_result",
]

_Around = Callable[[str], AbstractContextManager[Any]]
"""What a plugin's code runs in, given what of it is called."""

_inside: ContextVar[PluginRecord | None] = ContextVar("inside", default=None)
"""The plugin whose code is running."""

_owners: dict[str, PluginRecord] = {}
"""Whose the modules are that plugins, their providers and config models lie in, and their packages."""

_PLUGIN, _WHAT = "_graftkit_plugin", "_graftkit_what"
"""The attributes by which a guarded class says whose it is, and what its provider is called."""


@contextmanager
def guarded(plugin: PluginRecord, what: str) -> Iterator[None]:
    """Lets a plugin's code run: what it prints goes to standard error, and what it changes is put back.

    What it changed, and what it warns of, is kept in `plugin.notices`. Whatever it raises is raised. A process that it
    forked and that comes back here ends: what goes on is the one that called.

    Args:
        plugin: Whose code it is.
        what: What of it is called, such as "its import".
    """
    if _inside.get() is plugin:
        yield
        return
    token, state, streams = _inside.set(plugin), ProcessState(), _Streams(plugin, what)
    process = os.getpid()
    try:
        yield
    finally:
        end_if_forked(process, f"{plugin.label}: {what} forked this process, which came back from it")
        _inside.reset(token)
        streams.leave()
        changed = state.put_back()
        if changed:
            plugin.report(f"{what} changed {listed(changed)}, which core put back")


def end_if_forked(process: int, told: str) -> None:
    """Ends a process that is not the one that began what goes on here, as both would do it then.

    Args:
        process: The number of the process that began it.
        told: Why this is another one, for standard error.
    """
    if os.getpid() == process:
        return
    error = sys.exception()
    with suppress(OSError):
        os.write(2, f"{told}: it ends\n".encode(errors="backslashreplace"))
    code = error.code if isinstance(error, SystemExit) else 1
    os._exit(code if isinstance(code, int) else code is not None)


class _Streams:
    """Has what is printed go to standard error, and keeps the warnings that are shown, from now on.

    Calls may begin and end in several threads in any order: what one put aside is handed to the one after it where
    that still goes on.

    Args:
        plugin: Whose code runs.
        what: What of it.
    """

    _open: ClassVar[list[_Streams]] = []
    _lock: ClassVar[ForkLock] = ForkLock()

    def __init__(self, plugin: PluginRecord, what: str) -> None:
        self._plugin, self._what, self._thread = plugin, what, threading.get_ident()
        with self._lock:
            self._former = sys.stdout, warnings.showwarning
            self._open.append(self)
            sys.stdout, warnings.showwarning = sys.stderr, self._show

    def leave(self) -> None:
        """Puts both back as they were before."""
        with self._lock:
            place = self._open.index(self)
            if place + 1 < len(self._open):
                self._open[place + 1]._former = self._former
            else:
                sys.stdout, warnings.showwarning = self._former
            self._open.remove(self)

    @classmethod
    def leave_others(cls) -> None:
        """Puts back what the calls of other threads put aside, which a process that is forked meanwhile lacks."""
        for each in [each for each in cls._open if each._thread != threading.get_ident()]:
            each.leave()

    def _show(self, message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        """Keeps a warning for the plugin whose code runs in this thread, or else the one that was called last."""
        running = _inside.get()
        heard = next((each for each in reversed([*self._open]) if each._plugin is running), self)
        heard._plugin.report(f"{heard._what} warned: {category.__name__}: {message}", warning=True)


in_forked_process(_Streams.leave_others)


def guarded_class(cls: type, plugin: PluginRecord, kind: Kind, name: str) -> type:
    """Returns a class like `cls` whose public methods are each called under guard.

    A method that would end the program, or raises any other `BaseException` that is no stop (`is_stop`), or an
    exception that has no text to tell, or gives something else than its kind's methods do
    (`graftkit.host.results`), raises a `PluginCallError`; to another exception a note is added that names the plugin
    whose code raised it. A tokenizer that a method gives is checked likewise, see `_watch`.

    Args:
        cls: The class of a provider.
        plugin: The plugin that offers it.
        kind: The provider's kind.
        name: Its name.
    """
    remember(cls.__module__, plugin)
    return _class_of(cls, plugin, kind, f"{kind} '{name}'", partial(guarded, plugin))


def _class_of(cls: type, plugin: PluginRecord, kind: Kind | Part, what: str, around: _Around) -> type:
    """Returns a subclass whose public methods are called under watch; its instances are as those of `cls`."""
    members = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    methods = {
        name: _watched_method(value, plugin, kind, name, f"{name}() of its {what}", around)
        for name, value in members.items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }
    return _subclass(cls, {**methods, _PLUGIN: plugin, _WHAT: what})


def _subclass(cls: type, members: Mapping[str, Any]) -> type:
    """Returns a subclass of the same name that has these members, too; its instances are pickled as those of `cls`."""
    own: Any = cls

    def reduce(self: Any, protocol: Any) -> Any:
        """Pickles an instance as one of its own class, which another process finds by its name."""
        found = own.__reduce_ex__(self, protocol)
        if isinstance(found, str):
            return found
        function, arguments, *rest = found
        maker = _new if function is copyreg.__newobj__ else cls if function is same else function  # type: ignore[attr-defined]
        return (maker, tuple(cls if argument is same else argument for argument in arguments), *rest)

    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__slots__": (),
    }
    same = type(cls)(cls.__name__, (cls,), {**body, **members, "__reduce_ex__": reduce})
    return same


def _new(cls: type, *arguments: Any) -> Any:
    """Makes an instance that pickle then fills."""
    return cls.__new__(cls, *arguments)


def _watched_method(
    function: Callable[..., Any], plugin: PluginRecord, kind: Kind | Part, name: str, what: str, around: _Around
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            with around(what):
                result = function(self, *arguments, **named)
                wrong = wrong_with(kind, name, (*arguments, *named.values()), result)
                if (kind, name) == ("model-source", "open") and not wrong:
                    _settle_model(result, plugin)
        except GraftkitError as error:
            if isinstance(error, Cancelled) and not is_stop(error):
                raise PluginCallError(f"{what} raised {brief(error)}", where=plugin.label) from error
            if not error.where and plugin.distribution != BUILT_IN and raised_by(error, itself=True):
                note_once(error, f"{plugin.label} raised it: {what}")
            raise
        except Exception as error:
            if not _has_text(error):
                raise PluginCallError(f"{what} raised {brief(error)}", where=plugin.label) from None
            culprit = raised_by(error)
            others = culprit is not None and culprit.label != plugin.label  # a layer's, say
            note_once(
                error, f"{culprit.label} raised it" if culprit and others else f"{plugin.label} raised it: {what}"
            )
            raise
        except BaseException as error:
            if is_stop(error):
                raise
            raise PluginCallError(f"{what} raised {brief(error)}", where=plugin.label) from error
        if wrong:
            raise PluginCallError(f"{what} {wrong}", where=plugin.label)
        if (kind, name) in GIVES_TOKENIZERS:
            _watch(getattr(result, "tokenizer", result), plugin, getattr(self, _WHAT, what))
        return result

    return call


def _watch(tokenizer: Any, plugin: PluginRecord, what: str) -> None:
    """Has what a tokenizer gives looked at where it is called.

    Core calls it for every text: the process's settings are looked at after each stage. Those of built-in plugins,
    whose texts are millions, are held to the same by their contracts.
    """
    if plugin.distribution == BUILT_IN or is_watched(tokenizer):
        return
    own = type(tokenizer)
    remember(own.__module__, plugin)
    with suppress(TypeError):  # an instance whose class can't be another keeps its own
        if (own, what) not in plugin.classes:
            plugin.classes[own, what] = _class_of(own, plugin, "made tokenizer", what, nullcontext)
        object.__setattr__(tokenizer, "__class__", plugin.classes[own, what])


def is_watched(made: object) -> bool:
    """Tells whether another plugin than a built-in one made something whose methods are looked at."""
    return hasattr(type(made), _PLUGIN)


def _settle_model(files: Any, plugin: PluginRecord) -> None:
    """Has an opened model say of itself what it says now, for good; built-in plugins' are held to it by contracts."""
    if plugin.distribution == BUILT_IN or is_watched(files):
        return
    own: Any = type(files)
    remember(own.__module__, plugin)
    said = {name: property(partial(_constant, value)) for name, value in said_of_model(files).items()}
    with suppress(TypeError):  # an instance whose class can't be another keeps its own
        made = {
            _PLUGIN: plugin,
            "__new__": partial(_new_of, own),
        }  # what its methods make of its class is another model
        object.__setattr__(files, "__class__", _subclass(own, {**said, **made}))


def _new_of(own: Any, settled: type, *arguments: Any, **named: Any) -> Any:
    return own(*arguments, **named)


def _constant(value: object, of: object) -> object:
    return value


def is_stop(error: BaseException) -> bool:
    """Tells whether an error is somebody's request to stop, and none that a plugin's own code raised.

    `KeyboardInterrupt` comes from the handler of a signal, at whatever was running then; `Cancelled` from core.
    """
    if not isinstance(error, KeyboardInterrupt | Cancelled):
        return False
    if isinstance(error, KeyboardInterrupt) and _comes_from_a_signal(error):
        return True
    culprit = raised_by(error, itself=True)
    return culprit is None or culprit.distribution == BUILT_IN


def _comes_from_a_signal(error: BaseException) -> bool:
    """Tells whether Python's own handler of a signal raised an error, or another that is in place; and no `raise`."""
    innermost: TracebackType | None = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return True
    code = innermost.tb_frame.f_code
    handlers = [getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()]
    return code in handlers or code.co_code[innermost.tb_lasti] != opmap["RAISE_VARARGS"]


@contextmanager
def naming_plugins() -> Iterator[None]:
    """Names in errors the plugin whose code raised them, where no guard was around it.

    Raises:
        PluginCallError: A plugin's code tried to end the program.
    """
    try:
        yield
    except PluginCallError:
        raise
    except BaseException as error:
        culprit = raised_by(error)
        if culprit is None or culprit.distribution == BUILT_IN or is_stop(error):
            raise
        if isinstance(error, Exception) and not isinstance(error, Cancelled) and _has_text(error):
            if not isinstance(error, RequestError | HookError):
                note_once(error, f"{culprit.label} raised it")
            raise
        raise PluginCallError(f"it raised {brief(error)}", where=culprit.label) from error


def note_once(error: BaseException, note: str) -> None:
    """Adds a note that names a plugin, unless there is one already: the first is that of the innermost call."""
    if not any(known.startswith("plugin ") for known in getattr(error, "__notes__", ())):
        error.add_note(note)


def remember(module: str, plugin: PluginRecord) -> None:
    """Keeps whose a module is, and those beside and below it that are nobody else's.

    Core's own are no plugin's, and built-in plugins' are those plugins' whoever else offers what lies in them.

    Args:
        module: Its name.
        plugin: The plugin that it, or a provider in it, is of.
    """
    parts = module.split(".")
    known = _owner_of(module)
    built_in = known is not None and known.distribution == BUILT_IN and plugin.distribution != BUILT_IN
    if parts[0] == "graftkit" or built_in:
        return
    for length in range(1, len(parts)):
        _owners.setdefault(".".join(parts[:length]), plugin)
    _owners[module] = plugin


def raised_by(error: BaseException, *, itself: bool = False) -> PluginRecord | None:
    """Returns the plugin in whose code an error arose, by its traceback; None where no provider's code was running.

    Layers that adapters and quantizers make, and what model sources open, are called too often to be guarded.

    Args:
        error: The error, as it is caught.
        itself: Whether the plugin's own code must have raised it, and nothing that it called.
    """
    found: PluginRecord | None = None
    traceback = error.__traceback__
    while traceback is not None:
        owner = _owner_of(str(traceback.tb_frame.f_globals.get("__name__", "")))
        found = owner if itself else owner or found
        traceback = traceback.tb_next
    return found


def _owner_of(module: str) -> PluginRecord | None:
    """Returns the plugin that a module is of, by its name or that of the nearest package around it."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((_owners[name] for name in names if name in _owners), None)


def _has_text(error: Exception) -> bool:
    """Tells whether an error can be told and printed."""
    try:
        str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False
    return True


def wrong_result(provider: object, method: str, gave: str) -> PluginCallError:
    """Returns the error of a provider's method that gave something else than was due.

    Args:
        provider: The provider, or something that it has made, of a class of its own.
        method: The method's name.
        gave: What it gave, and what was due.

    Example:
        >>> str(wrong_result(object(), "tolerance", "gave None, not a number"))
        'tolerance() of object gave None, not a number'
    """
    plugin: PluginRecord | None = getattr(provider, _PLUGIN, None) or _owner_of(type(provider).__module__)
    what = getattr(provider, _WHAT, type(provider).__name__)
    return PluginCallError(
        f"{method}() of {'its ' if plugin else ''}{what} {gave}", where=plugin.label if plugin else ""
    )


def report_of(provider: object, message: str) -> None:
    """Keeps what a provider was found to do as its plugin's notice; see `PluginRecord.report`.

    Args:
        provider: The provider.
        message: What it did.
    """
    plugin: PluginRecord | None = getattr(provider, _PLUGIN, None)
    if plugin is not None:
        plugin.report(message)


def brief(error: BaseException) -> str:
    """Returns an error's kind and text on one line."""
    text = " ".join(text_of(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence lists them: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
