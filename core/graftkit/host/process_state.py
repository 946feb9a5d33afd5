"""What code of any kind can change in the process for everybody else, kept and put back."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from graftkit.host.imported import imported
from graftkit.visible import first_of

__all__ = ["ProcessState"]


@dataclass(frozen=True, slots=True)
class _Setting:
    """One setting of the process.

    Attributes:
        name: What it is called in a message.
        read: Returns its value.
        write: Sets it.
        differs: Says in words what of it differs between two values, the one before and the one now; "" for nothing.
            A comparison under `name` where left out.
        cheap: Whether it is read in about a microsecond and changes what a step of training computes.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    differs: Callable[[Any, Any], str] | None = None
    cheap: bool = False

    def put_back(self, before: Any) -> str:
        """Sets the value from before, and returns what had changed, in words."""
        now = self.read()
        if self.differs is not None:
            told = self.differs(before, now)
        else:
            told = "" if before is now or before == now else self.name
        if told:
            with suppress(OSError, ValueError):  # a folder that is gone, a locale that is no more
                self.write(before)
        return told


_OF_TORCH_ITSELF = ("TORCHINDUCTOR_", "TRITON_")
"""What variables begin with that torch sets when it is imported; they choose where its compiler keeps files."""


def _variables(environment: Any) -> dict[Any, Any]:
    """Returns the variables as `os.environ` keeps them, in bytes on most systems: decoding all takes much longer."""
    return dict(getattr(environment, "_data", environment))


def _read_environment() -> tuple[Any, dict[Any, Any]]:
    """Returns `os.environ` itself, in whose place another one may be put, and its variables."""
    return os.environ, _variables(os.environ)


def _changed_variables(before: Mapping[Any, Any], now: Mapping[Any, Any]) -> dict[str, str | None]:
    """Returns the variables that differ, each with its value before, or None where there was none."""
    if before == now:
        return {}
    names = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    values = {os.fsdecode(name): os.fsdecode(before[name]) if name in before else None for name in names}
    return {name: value for name, value in sorted(values.items()) if not name.startswith(_OF_TORCH_ITSELF)}


def _write_environment(before: tuple[Any, Mapping[Any, Any]]) -> None:
    os.environ, variables = before
    for name, value in _changed_variables(variables, _variables(os.environ)).items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def _environment_differs(before: tuple[Any, Mapping[Any, Any]], now: tuple[Any, Mapping[Any, Any]]) -> str:
    """Names the variables; their values may be secrets."""
    if before[0] is not now[0]:
        return "os.environ"
    names = list(_changed_variables(before[1], now[1]))
    return f"the environment ({first_of(names)})" if names else ""


def _read_folder() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # it has been deleted
        return None


def _write_folder(before: str | None) -> None:
    if before is not None:
        os.chdir(before)


_SIGNALS = tuple(
    number
    for number in signal.Signals  # which on Windows has events of the console, too
    if number in signal.valid_signals() and number.name not in ("SIGKILL", "SIGSTOP", "SIGRTMIN", "SIGRTMAX")
)
"""Those that have a handler: a run is stopped by some, a time limit needs one, and a program has its own."""

_TIMERS = tuple(
    getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)
)


_OF_THREAD = Path("/proc/thread-self/status")


def _read_umask() -> int | None:
    """Asks the kernel where it tells: the system's own call sets another one meanwhile, for every thread."""
    try:
        return int(_OF_THREAD.read_bytes().partition(b"Umask:")[2].split(None, 1)[0], 8)
    except (OSError, ValueError, IndexError):
        return None


def _write_umask(before: int | None) -> None:
    if before is not None:
        os.umask(before)


def _in_main_thread() -> bool:
    """Tells whether signals are this thread's: what changes of them while another one works is not its doing."""
    return threading.current_thread() is threading.main_thread()


def _read_signals() -> list[Any]:
    return [*map(signal.getsignal, _SIGNALS)] if _in_main_thread() else []


def _write_signals(before: Sequence[Any]) -> None:
    for number, handler in zip(_SIGNALS, before, strict=True):
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _read_timers() -> list[tuple[float, float]]:
    return [*map(signal.getitimer, _TIMERS)] if _in_main_thread() else []


def _timers_differ(before: Sequence[tuple[float, float]], now: Sequence[tuple[float, float]]) -> str:
    """One that has been started since ends the process, once its signal's handler is put back; others count on."""
    started = any(each[0] and not former[0] for former, each in zip(before, now, strict=True))
    return "the timers of signals" if started else ""


def _write_timers(before: Sequence[tuple[float, float]]) -> None:
    for timer, kept in zip(_TIMERS, before, strict=True):
        if not kept[0]:
            signal.setitimer(timer, 0)


def _read_blocked() -> set[int]:
    """Returns the signals that this thread is not sent."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()) if hasattr(signal, "pthread_sigmask") else set()


def _write_blocked(before: set[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


_SUBNORMAL = 5e-324


def _flushes_subnormals() -> bool:
    """Tells whether the processor takes numbers too small for full precision for 0, as some libraries set it."""
    return _SUBNORMAL * 1.0 == 0.0


def _write_flushing(before: bool) -> None:
    torch = imported("torch")
    if torch:
        torch.set_flush_denormal(before)
    elif not before and sys.platform == "linux":
        import ctypes

        ctypes.CDLL("libm.so.6").fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV


Filter = tuple[Any, ...]


def _blanket(filter: Filter) -> bool:
    """Tells whether a filter of warnings concerns everybody's."""
    _, message, category, module, _ = filter
    return message is None and module is None and category is Warning


def _filters_differ(before: Sequence[Filter], now: Sequence[Filter]) -> str:
    """Filters of particular warnings may be added, as many libraries do for their own."""
    if before == now:
        return ""
    lost = any(filter not in now for filter in before)
    added = any(_blanket(filter) and filter not in before for filter in now)
    return "the filters of warnings" if lost or added else ""


def _write_filters(before: Sequence[Filter]) -> None:
    kept = [filter for filter in warnings.filters if filter not in before and not _blanket(filter)]
    warnings.filters[:] = [*kept, *before]  # type: ignore[index]
    with warnings.catch_warnings():  # tells the interpreter, which caches them, that they have changed
        pass


def _read_ways_to_import() -> tuple[list[Any], list[Any]]:
    return list(sys.path), [finder for finder in sys.meta_path if not isinstance(finder, _AfterImport)]


def _ways_differ(before: tuple[list[Any], list[Any]], now: tuple[list[Any], list[Any]]) -> str:
    """Folders may be added, as by plugins that bring their own libraries; what is imported later needs the others."""
    lost = [each for kept, found in zip(before, now, strict=True) for each in kept if each not in found]
    return "where modules are imported from" if lost else ""


def _write_ways_to_import(before: tuple[list[Any], list[Any]]) -> None:
    places: tuple[list[Any], list[Any]] = (sys.path, sys.meta_path)
    for kept, place in zip(before, places, strict=True):
        place[:] = [*(each for each in place if each not in kept), *kept]


_OF_PYTHON = (
    _Setting("the current folder", _read_folder, _write_folder),
    _Setting("the environment", _read_environment, _write_environment, _environment_differs),
    _Setting("the timers of signals", _read_timers, _write_timers, _timers_differ),
    _Setting("the handlers of signals", _read_signals, _write_signals),
    _Setting("the signals that are blocked", _read_blocked, _write_blocked),
    _Setting("the processor's handling of subnormal numbers", _flushes_subnormals, _write_flushing),
    _Setting("the permissions of new files", _read_umask, _write_umask),
    _Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("the longest number that is read", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    _Setting("where modules are imported from", _read_ways_to_import, _write_ways_to_import, _ways_differ),
    _Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    _Setting("sys.stdin", lambda: sys.stdin, lambda stream: setattr(sys, "stdin", stream)),
    _Setting("sys.stderr", lambda: sys.stderr, lambda stream: setattr(sys, "stderr", stream)),
    _Setting("the filters of warnings", lambda: list(warnings.filters), _write_filters, _filters_differ),
)


def _of_random(random: Any) -> tuple[_Setting, ...]:
    return (_Setting("Python's random state", random.getstate, random.setstate),)


def _of_locale(locale: Any) -> tuple[_Setting, ...]:
    def write(before: str) -> None:
        locale.setlocale(locale.LC_ALL, before)

    return (_Setting("the locale", lambda: locale.setlocale(locale.LC_ALL), write),)


def _of_socket(socket: Any) -> tuple[_Setting, ...]:
    return (_Setting("the timeout of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),)


def _of_logging(logging: Any) -> tuple[_Setting, ...]:
    return (_Setting("logging for all", lambda: logging.root.manager.disable, logging.disable),)


def _of_numpy(numpy: Any) -> tuple[_Setting, ...]:
    def random_differs(before: Any, now: Any) -> str:
        same = before[2:] == now[2:] and (before[1] == now[1]).all()
        return "" if same else "numpy's random state"

    return (
        _Setting("numpy's random state", numpy.random.get_state, numpy.random.set_state, random_differs),
        _Setting("numpy's handling of errors", numpy.geterr, lambda kept: numpy.seterr(**kept)),
    )


def _of_torch(torch: Any) -> tuple[_Setting, ...]:
    def read_default_device() -> Any:
        chosen = sys.modules.get("torch.utils._device")  # torch imports it when somebody chooses one
        return getattr(chosen, "CURRENT_DEVICE", None)

    def read_random() -> list[Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return [torch.get_rng_state(), *cuda]

    def write_random(states: Sequence[Any]) -> None:
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state_all(states[1:])

    def random_differs(before: Sequence[Any], now: Sequence[Any]) -> str:
        return "" if all(map(torch.equal, before, now)) else "torch's random state"  # CUDA may have started since

    def read_determinism() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def write_determinism(kept: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(kept[0], warn_only=kept[1])

    def read_autocast() -> list[bool]:
        return [torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")]

    def write_autocast(kept: Sequence[bool]) -> None:
        torch.set_autocast_enabled("cpu", kept[0])
        torch.set_autocast_enabled("cuda", kept[1])

    cudnn = torch.backends.cudnn

    def read_cudnn() -> tuple[bool, bool, bool]:
        return cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32

    def write_cudnn(kept: tuple[bool, bool, bool]) -> None:
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = kept

    kernels = ("flash", "mem_efficient", "math", "cudnn")

    def read_attention() -> list[bool]:
        return [getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")() for kernel in kernels]

    def write_attention(kept: Sequence[bool]) -> None:
        for kernel, on in zip(kernels, kept, strict=True):
            getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(on)

    mkldnn = torch.backends.mkldnn
    precision, threads = torch.get_float32_matmul_precision, torch.get_num_threads
    return (
        _Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype, cheap=True),
        _Setting("torch's default device", read_default_device, torch.set_default_device, cheap=True),
        _Setting("torch's threads", threads, torch.set_num_threads, cheap=True),
        _Setting("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled, cheap=True),
        _Setting("torch's deterministic algorithms", read_determinism, write_determinism, cheap=True),
        _Setting("torch's autocast", read_autocast, write_autocast, cheap=True),
        _Setting("torch's matmul precision", precision, torch.set_float32_matmul_precision, cheap=True),
        _Setting("torch's anomaly mode", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        _Setting("cudnn's settings", read_cudnn, write_cudnn),
        _Setting("torch's use of oneDNN", lambda: mkldnn.enabled, lambda on: setattr(mkldnn, "enabled", on)),
        _Setting("torch's kernels of attention", read_attention, write_attention),
        _Setting("torch's random state", read_random, write_random, random_differs),
    )


_LIBRARIES: Mapping[str, Callable[[Any], tuple[_Setting, ...]]] = {
    "random": _of_random,
    "locale": _of_locale,
    "socket": _of_socket,
    "logging": _of_logging,
    "numpy": _of_numpy,
    "torch": _of_torch,
}
"""The modules with settings of their own, none of which is imported for their sake."""

_known: dict[str, tuple[_Setting, ...]] = {}


def _settings_of(library: str) -> tuple[_Setting, ...]:
    """Returns the settings of a library; none while nobody has imported it."""
    if library not in _known and (module := imported(library)):
        _known[library] = _LIBRARIES[library](module)
    return _known.get(library, ())


class ProcessState:
    """The process's settings at one moment.

    What torch has set by itself is kept, too, when it is imported after that moment: nothing here imports it.

    Args:
        cheap: Keep only what a step of training depends on, in a few microseconds.

    Example:
        >>> import random
        >>> state = ProcessState()
        >>> random.seed(3)
        >>> state.put_back()
        ["Python's random state"]
    """

    def __init__(self, *, cheap: bool = False) -> None:
        self._cheap = cheap
        self._kept: list[tuple[_Setting, Any]] = []
        self._finder: _AfterImport | None = None
        self._keep(() if cheap else _OF_PYTHON)
        for library in () if cheap else ("random", "locale", "socket", "logging", "numpy"):
            self._keep(_settings_of(library))
        if "torch" in sys.modules:
            self._keep(_settings_of("torch"))
        else:
            self._finder = _AfterImport("torch", lambda: self._keep(_settings_of("torch")))

    def _keep(self, settings: Sequence[_Setting]) -> None:
        self._kept += [(setting, setting.read()) for setting in settings if setting.cheap or not self._cheap]

    def put_back(self) -> list[str]:
        """Puts every setting back that has changed, and returns their names."""
        if self._finder is not None:
            self._finder.remove()
        return [told for setting, before in self._kept if (told := setting.put_back(before))]


class _AfterImport(MetaPathFinder):
    """Calls a function as soon as a module has been imported, before whoever imports it goes on.

    Args:
        name: The module, which is not imported yet.
        then: The function.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name, self._then = name, then
        self._searching = False
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Takes no further part in imports."""
        with suppress(ValueError):
            sys.meta_path.remove(self)

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Finds the module as if this object were not there, and prepares the call."""
        if fullname != self._name or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_tell(module: ModuleType) -> None:
                execute(module)
                self._then()

            spec.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec
