"""Starts Python children as forks of a process that has imported torch and what goes with it, which takes seconds.

A fork has modules that a fresh process would first import, graftkit's among them, and nothing else of this process:
other memory, its own environment, folder, arguments, streams and session. Whatever can't be had by a fork is a fresh
process: another interpreter, or a variable that is read at an import or when Python starts.
"""

from __future__ import annotations

import atexit
import ctypes
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["ForkingPopen", "at_start", "children_forked", "fork_with"]

_AT_START = (
    *("PYTHON", "HF_", "TRANSFORMERS_", "TORCH", "OMP_", "MKL_", "TOKENIZERS_", "CUDA", "BNB_", "MALLOC_"),
    *("LD_", "LC_", "LANG", "HOME", "XDG_", "TZ", "TMP"),
)
"""How the names of variables begin that Python or a library reads when it starts."""

_ELSEWHERE = ("PYTHONPATH", "TORCHINDUCTOR_CACHE_DIR")
"""Those that are not: the first is looked at, the second is set by torch itself when it is imported."""

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""What a proof's process has besides."""

_SUBREAPER = 36
"""`PR_SET_CHILD_SUBREAPER` of `prctl`: whether orphans among the descendants become this process's own children."""

_REQUEST = 1 << 20
"""The most bytes of a request."""


_FreshPopen = subprocess.Popen


class ForkingPopen(subprocess.Popen[Any]):
    """A `Popen` that forks a process with everything imported, where that comes to what was asked for."""

    def _execute_child(self, *arguments: Any, **named: Any) -> None:
        original: Callable[..., None] = _FreshPopen._execute_child  # type: ignore[attr-defined]
        given = inspect.signature(original).bind(self, *arguments, **named).arguments
        run, environment = _what_runs(given), {**(os.environ if given["env"] is None else given["env"])}
        server = _server_for(environment) if run else None
        if run is None or server is None:
            original(self, *arguments, **named)
            return
        request = {
            **run,
            "environment": environment,
            "folder": str(Path(given["cwd"] or ".").absolute()),
            "ignored": [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN],
            "session": bool(given.get("unused_start_new_session", given.get("start_new_session"))),
        }
        pipes = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self.pid = server.fork(request, [own if pipe == -1 else pipe for own, pipe in enumerate(pipes)])
        self._child_created = True
        names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in names))  # type: ignore[attr-defined]


@contextmanager
def children_forked() -> Iterator[None]:
    """Has `subprocess` fork children where it can."""
    subprocess.Popen = ForkingPopen  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = _FreshPopen  # type: ignore[misc]


def _what_runs(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the module or the code that a command runs, and its arguments; None where no fork does that."""
    if given["preexec_fn"] or given["pass_fds"] or given["shell"] or given["executable"] not in (None, sys.executable):
        return None
    command = [given["args"]] if isinstance(given["args"], str | bytes | os.PathLike) else list(given["args"])
    if not all(isinstance(word, str) for word in command) or command[0] != sys.executable:
        return None
    words = command[1:]
    safe = words[:1] == ["-P"]
    words = words[safe:]
    if len(words) < 2 or words[0] not in ("-m", "-c"):
        return None
    return {"kind": words[0], "what": words[1], "arguments": words[2:], "safe": safe}


def at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that Python or a library reads when it starts."""
    return {name: value for name, value in environment.items() if name.startswith(_AT_START) and name not in _ELSEWHERE}


_OWN = at_start(os.environ)
_SETS: list[dict[str, str]] = [_OWN, {**_OWN, **_OFFLINE}]
"""The variables, of those that are read at the start, that there is a process to fork with."""

_SERVERS: dict[int, _Server] = {}


def fork_with(environment: Mapping[str, str]) -> None:
    """Has children with these variables forked, too, which costs a process that has imported everything with them."""
    if at_start(environment) not in _SETS:
        _SETS.append(at_start(environment))


def _server_for(environment: Mapping[str, str]) -> _Server | None:
    """Returns the process to fork, which is started at its first use; None where none has these variables."""
    variables = at_start(environment)
    if sys.platform != "linux" or variables not in _SETS:
        return None
    place = _SETS.index(variables)
    if place not in _SERVERS or _SERVERS[place].owner != os.getpid():
        _SERVERS[place] = _Server(variables)
    return _SERVERS[place]


class _Server:
    """A process that has imported everything and waits to be forked."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.owner = os.getpid()
        self._one_at_a_time = threading.Lock()
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._socket, its_own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_own:
            self._process = _FreshPopen(
                [sys.executable, "-P", __file__, str(its_own.fileno())],
                env={name: os.environ[name] for name in os.environ.keys() - at_start(os.environ)} | {**variables},
                pass_fds=[its_own.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        if self._socket.recv(16) != b"ready":
            raise RuntimeError("the process to fork did not start")

    def fork(self, request: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Returns the number of a process that does what is asked, a child of this one."""
        with self._one_at_a_time:
            if self._prctl(_SUBREAPER, 1, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "this process can't adopt its descendants")
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
                return int(self._socket.recv(16))
            finally:
                self._prctl(_SUBREAPER, 0, 0, 0, 0)


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Forks at each request; returns it in the process that was forked, once that is as a fresh one would be."""
    connection.send(b"ready")
    while True:
        message, streams, _, _ = socket.recv_fds(connection, _REQUEST, 3)
        if not message:
            os._exit(0)
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            own = os.getpid()
            child = os.fork()
            if child:  # whose death makes the child an orphan
                os.write(writer, str(child).encode())
                os._exit(0)
            while os.getppid() == own:  # what it does next may ask for its parent, or be tied to that one's life
                time.sleep(0.001)
            connection.close()
            os.close(reader)
            os.close(writer)
            request: dict[str, Any] = json.loads(message)
            _become(request, streams)
            return request
        os.waitpid(between, 0)
        connection.send(os.read(reader, 16))
        for number in (reader, writer, *streams):
            os.close(number)


def _become(request: Mapping[str, Any], streams: Sequence[int]) -> None:
    import importlib

    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    if request["session"]:
        os.setsid()
    for number in signal.valid_signals():
        ignored = signal.getsignal(number) == signal.SIG_IGN
        if ignored and number not in request["ignored"]:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        elif not ignored and number in request["ignored"]:
            signal.signal(number, signal.SIG_IGN)
    os.chdir(request["folder"])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    default = [folder for folder in sys.path if folder not in given]
    os.environ.clear()
    os.environ.update(request["environment"])
    first = [] if request["safe"] else [str(Path.cwd()) if request["kind"] == "-m" else ""]
    added = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [*first, *added, *(folder for folder in default if folder not in added)]
    sys.argv[:] = [request["kind"], *request["arguments"]]
    importlib.invalidate_caches()
    _forget_graftkit_from_elsewhere()


_IMPORTED = (
    *("torch", "transformers", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama"),
    *("peft", "bitsandbytes", "safetensors.torch", "jinja2", "pydantic", "pluggy", "yaml", "click", "rich.console"),
)
"""What children of tests import of others."""

_OWN_IMPORTED = ("graftkit.flow.run", "graftkit.flow.exports.prove", "graftkit.flow.preparation.settle_memory_apart")
"""What they import of graftkit, but no command and no plugin, whose imports are looked at by tests."""


def _import_all() -> None:
    import importlib
    from contextlib import suppress

    for name in (*_IMPORTED, *_OWN_IMPORTED):
        with suppress(ImportError):
            importlib.import_module(name)


def _forget_graftkit_from_elsewhere() -> None:
    """Forgets graftkit's modules where this process, once it has its own path, would import others."""
    imported = sys.modules.get("graftkit")
    found = next(filter(None, (finder.find_spec("graftkit", None) for finder in sys.meta_path)), None)
    if imported is None or (found is not None and found.origin == imported.__file__):
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "graftkit"]:
        del sys.modules[name]


def _run(asked: Mapping[str, Any]) -> None:
    """Does what is asked, as Python does it at its top level."""
    if asked["kind"] == "-m":
        import runpy

        sys.modules.pop(asked["what"], None)  # it is run as another module, __main__
        runpy.run_module(asked["what"], run_name="__main__", alter_sys=True)
    else:
        import types

        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(asked["what"], "<string>", "exec"), vars(sys.modules["__main__"]))


def _end(code: int | str | None) -> NoReturn:
    """Ends as Python does, but for taking all modules to pieces, which takes a third of a second.

    Args:
        code: What `sys.exit` was called with.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        code = 120  # as Python says it
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    import gc

    _import_all()
    gc.freeze()
    asked, here = _serve(socket.socket(fileno=int(sys.argv[1]))), sys.modules["__main__"]
    try:
        _run(asked)
    except SystemExit as end:
        _end(end.code)
    _end(None)
