"""Whatever a plugin's code changes for others is put back, and told with the plugin's name and version."""

from __future__ import annotations

import copy
import importlib
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from graftkit import PluginHost, hookimpl
from graftkit.errors import Cancelled, HookError, PluginCallError, PluginError
from graftkit.flow.base_files.recreate import make_provider
from graftkit.flow.state.cancel import CancelToken
from graftkit.host.guard import guarded_class, is_stop, naming_plugins
from graftkit.host.lifecycle import RunInfo, StageInfo
from graftkit.host.process_state import ProcessState
from graftkit.host.records import PluginRecord

Site = Any  # tests/core/host/conftest.py
RUN = RunInfo(Path("runs/x"), {"training": {"seed": 0}, "export": [{"use": "peft"}]})

DISTURBANCES: dict[str, tuple[str, Callable[[], Any]]] = {
    "the current folder": ("import os; os.chdir('/')", os.getcwd),
    "the environment (CANARY)": ("import os; os.environ['CANARY'] = 'value'", lambda: dict(os.environ)),
    "the environment (PATH)": ("import os; del os.environ['PATH']", lambda: dict(os.environ)),
    "Python's random state": ("import random; random.random()", random.getstate),
    "the handlers of signals": (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        lambda: signal.getsignal(signal.SIGTERM),
    ),
    "os.environ": ("import os; os.environ = {}", lambda: id(os.environ)),
    "the handlers of signals ": (
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        lambda: signal.getsignal(signal.SIGUSR1),
    ),
    "the timers of signals": ("import signal; signal.alarm(60)", lambda: signal.getitimer(signal.ITIMER_REAL)),
    "the signals that are blocked": (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
    ),
    "the processor's handling of subnormal numbers": (
        "import torch; torch.set_flush_denormal(True)",
        lambda: float("5e-324") * 1.0,
    ),
    "sys.stdin": ("import sys; sys.stdin = None", lambda: sys.stdin),
    "the permissions of new files": ("import os; os.umask(0o777)", lambda: os.umask(os.umask(0o22))),
    "the timeout of sockets": ("import socket; socket.setdefaulttimeout(3)", socket.getdefaulttimeout),
    "the recursion limit": ("import sys; sys.setrecursionlimit(5000)", sys.getrecursionlimit),
    "the longest number that is read": ("import sys; sys.set_int_max_str_digits(0)", sys.get_int_max_str_digits),
    "where modules are imported from": ("import sys; sys.path[:] = []", lambda: list(sys.path)),
    "where modules are imported from ": ("import sys; sys.meta_path.clear()", lambda: list(sys.meta_path)),
    "garbage collection": ("import gc; gc.disable()", lambda: __import__("gc").isenabled()),
    "logging for all": ("import logging; logging.disable(50)", lambda: __import__("logging").root.manager.disable),
    "sys.stderr": ("import sys; sys.stderr = None", lambda: sys.stderr),
    "the filters of warnings": ("import warnings; warnings.simplefilter('ignore')", lambda: list(warnings.filters)),
    "numpy's random state": ("import numpy; numpy.random.seed(3)", lambda: str(np.random.get_state())),
    "numpy's handling of errors": ("import numpy; numpy.seterr(all='raise')", np.geterr),
    "torch's default dtype": ("import torch; torch.set_default_dtype(torch.float64)", torch.get_default_dtype),
    "torch's default device": ("import torch; torch.set_default_device('meta')", torch.get_default_device),
    "torch's threads": ("import torch; torch.set_num_threads(torch.get_num_threads() + 1)", torch.get_num_threads),
    "torch's gradient mode": ("import torch; torch.set_grad_enabled(False)", torch.is_grad_enabled),
    "torch's deterministic algorithms": (
        "import torch; torch.use_deterministic_algorithms(True)",
        torch.are_deterministic_algorithms_enabled,
    ),
    "torch's autocast": (
        "import torch; torch.set_autocast_enabled('cpu', True)",
        lambda: torch.is_autocast_enabled("cpu"),
    ),
    "torch's matmul precision": (
        "import torch; torch.set_float32_matmul_precision('medium')",
        torch.get_float32_matmul_precision,
    ),
    "torch's anomaly mode": ("import torch; torch.autograd.set_detect_anomaly(True)", torch.is_anomaly_enabled),
    "cudnn's settings": (
        "import torch; torch.backends.cudnn.deterministic = True",
        lambda: torch.backends.cudnn.deterministic,
    ),
    "torch's use of oneDNN": (
        "import torch; torch.backends.mkldnn.enabled = False",
        lambda: torch.backends.mkldnn.enabled,
    ),
    "torch's kernels of attention": (
        "import torch; torch.backends.cuda.enable_flash_sdp(False)",
        torch.backends.cuda.flash_sdp_enabled,
    ),
    "torch's random state": ("import torch; torch.manual_seed(3)", lambda: torch.get_rng_state().tolist()),
}
"""What a plugin may change, by how a notice calls it: a statement that does so, and what reads the setting."""

SOURCE = """
from graftkit import Provider, ProviderConfig, hookimpl

def disturb():
{body}

class Config(ProviderConfig):
    pass

class Thing:
    def __init__(self, config):
        {made}

    def method(self):
        {called}
        return self.other()

    def other(self):
        return 3

{imported}

@hookimpl
def graftkit_adapters():
    {registered}
    return [Provider(name="twig", target="acme:Thing", config="acme:Config")]

@hookimpl
def graftkit_run_started(run):
    {hook}
"""


def acme(site: Site, statement: str, *places: str) -> None:
    """Installs a plugin whose code runs a statement in some of its places."""
    calls = dict.fromkeys(PLACES, "pass") | dict.fromkeys(places, "disturb()")
    site.install("acme", SOURCE.format(body=indent(statement, "    "), **calls), version="1.5")


def use_all(host: PluginHost) -> None:
    """Has core call the plugin in every way."""
    registered = host.registry.resolve("adapter", "twig")
    made = host.registry.create(registered, host.registry.config_class(registered)())
    assert made.method() == 3
    host.broadcast("graftkit_run_started", run=RUN)


@pytest.fixture
def no_traces() -> Any:
    """Leaves the process as it was even where the code under test does not."""
    state = ProcessState()
    yield
    state.put_back()


@pytest.mark.parametrize("name", DISTURBANCES)
def test_what_a_hook_changes_is_put_back_and_named(site: Site, no_traces: None, name: str) -> None:
    statement, read = DISTURBANCES[name]
    acme(site, statement, "hook")
    host = PluginHost()
    before = read()
    host.broadcast("graftkit_run_started", run=RUN)
    assert read() == before
    assert host.notices == [
        f"plugin 'main' of acme 1.5: its hook graftkit_run_started changed {name.strip()}, which core put back"
    ]
    assert host.take_notices() == host.notices and host.take_notices() == []


PLACES = {
    "imported": "its import",
    "registered": "its hook graftkit_adapters",
    "made": "the making of its adapter 'twig'",
    "called": "method() of its adapter 'twig'",
    "hook": "its hook graftkit_run_started",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_call_into_a_plugin_is_guarded(site: Site, no_traces: None, place: str, capfd: Any) -> None:
    statement = (
        "import torch, warnings\ntorch.set_default_dtype(torch.float64)\nprint('hello')\nwarnings.warn('it is\\n old')"
    )
    acme(site, statement, place)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        use_all(host := PluginHost())
    assert torch.get_default_dtype() is torch.float32
    label = f"plugin 'main' of acme 1.5: {PLACES[place]}"
    assert host.notices == [
        f"{label} warned: UserWarning: it is old",
        f"{label} changed torch's default dtype, which core put back",
    ]
    written = capfd.readouterr()
    assert written.out == "" and written.err == "hello\n"


def test_a_plugin_that_changes_nothing_and_the_built_in_ones_have_no_notices(site: Site) -> None:
    acme(site, "pass", *PLACES)
    host = PluginHost()
    use_all(host)
    for kind, name in (
        ("adapter", "lora"),
        ("quantizer", "nf4"),
        ("tokenizer", "huggingface"),
        ("exporter", "merged"),
    ):
        registered = host.registry.resolve(kind, name)  # type: ignore[arg-type]
        host.registry.create(registered, host.registry.config_class(registered)())
    assert host.notices == []


def test_signals_that_the_main_thread_sets_meanwhile_are_no_plugins_doing() -> None:
    begun, goes_on, changed = threading.Event(), threading.Event(), list[str]()

    def call() -> None:
        state = ProcessState()
        begun.set()
        goes_on.wait(10)
        changed.extend(state.put_back())

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(10)
    former = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        goes_on.set()
        thread.join()
        assert changed == [] and signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGUSR1, former)


def test_a_folder_of_a_plugins_own_libraries_stays(site: Site, no_traces: None) -> None:
    acme(site, "import sys; sys.path.insert(0, '/own')", "hook")
    host = PluginHost()
    host.broadcast("graftkit_run_started", run=RUN)
    assert sys.path[0] == "/own" and not host.notices
    sys.path.remove("/own")


def test_a_filter_for_a_librarys_own_warnings_stays(site: Site, no_traces: None) -> None:
    acme(site, "import warnings; warnings.filterwarnings('ignore', message='of acme', module='acme')", "imported")
    assert PluginHost().notices == []
    assert any(filter[1] and filter[1].pattern == "of acme" for filter in warnings.filters)


@pytest.mark.parametrize(
    "raised",
    [
        "SystemExit(3)",
        "GeneratorExit",
        "type('Panic', (BaseException,), {})('gone')",
        "KeyboardInterrupt('mine')",
        "ValueError('wrong')",
        "type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()",
        "type('Leaving', (Exception,), {'__str__': lambda self: exit(0)})()",
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_plugin_raises_is_told_with_its_name_and_version(site: Site, place: str, raised: str) -> None:
    acme(site, f"raise {raised}", place)
    host = PluginHost()
    kind = next(
        name
        for name in (
            *("SystemExit: 3", "GeneratorExit", "Panic: gone", "KeyboardInterrupt: mine", "ValueError: wrong"),
            "Mute: its text can't be made: ZeroDivisionError",
            "Leaving: its text can't be made: SystemExit",
        )
        if name[:4] in raised
    )
    [record] = [record for record in host.records if record.distribution == "acme"]
    if place in ("imported", "registered"):
        assert (record.status, record.reason, record.version) == ("failed", kind, "1.5")
        return
    with pytest.raises((PluginError, PluginCallError, HookError, ValueError)) as caught:
        use_all(host)
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "plugin 'main' of acme 1.5" in told and kind.rpartition(": ")[2] in told
    assert isinstance(caught.value, Exception)


@pytest.mark.parametrize("place", ["registered", "made", "called", "hook"])
def test_ctrl_c_stays_ctrl_c(site: Site, place: str) -> None:
    acme(site, "import signal; signal.raise_signal(signal.SIGINT)", place)
    with pytest.raises(KeyboardInterrupt):
        use_all(PluginHost())


def test_a_stop_is_no_plugins_own_error(site: Site) -> None:
    """A handler of a signal, Python's own or a program's, stops the program; a plugin's `raise` does not."""

    def handle(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    source = """\
    import signal
    from graftkit.errors import Cancelled

    def interrupted():
        signal.raise_signal(signal.SIGINT)

    def again():
        try:
            interrupted()
        except KeyboardInterrupt:
            raise

    def raised():
        raise KeyboardInterrupt

    def cancelled():
        raise Cancelled("mine")

    def asked(token):
        token.poll()
    """
    site.install("acme", source)
    PluginHost()
    acme_module, token = importlib.import_module("acme"), CancelToken()
    token.cancel("theirs")
    for call, stops in (
        (acme_module.interrupted, True),
        (acme_module.again, True),
        (lambda: acme_module.asked(token), True),
        (acme_module.raised, False),
        (acme_module.cancelled, False),
    ):
        with pytest.raises((KeyboardInterrupt, Cancelled)) as caught:
            call()
        assert is_stop(caught.value) is stops
    former = signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            acme_module.again()
        assert is_stop(caught.value)
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("SystemExit(0)", "plugin 'main' of acme 1.5: it raised SystemExit: 0"),
        ("KeyboardInterrupt", "plugin 'main' of acme 1.5: it raised KeyboardInterrupt"),
        ("ValueError('wrong')", "plugin 'main' of acme 1.5 raised it"),
    ],
)
def test_code_that_nothing_guards_is_named(site: Site, raised: str, told: str) -> None:
    acme(site, f"raise {raised}")
    PluginHost()
    with pytest.raises((PluginCallError, ValueError)) as caught, naming_plugins():
        importlib.import_module("acme").disturb()
    assert told in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


def test_what_is_put_back_is_put_back_after_an_error_too(site: Site, no_traces: None) -> None:
    acme(site, "import os\nos.chdir('/')\nraise RuntimeError('boom')", "hook")
    host, before = PluginHost(), Path.cwd()
    with pytest.raises(HookError):
        host.broadcast("graftkit_run_started", run=RUN)
    assert Path.cwd() == before and "the current folder" in host.notices[0]


def test_a_guarded_provider_is_of_its_own_class_and_can_be_pickled_and_copied(site: Site) -> None:
    acme(site, "pass")
    host = PluginHost()
    registered = host.registry.resolve("adapter", "twig")
    config = host.registry.config_class(registered)()
    made, again = (host.registry.create(registered, config) for _ in range(2))
    thing = sys.modules["acme"].Thing
    assert isinstance(made, thing) and type(made).__name__ == "Thing" and type(made) is type(again)
    assert type(pickle.loads(pickle.dumps(made))) is thing and isinstance(copy.deepcopy(made), thing)


def test_torch_that_a_plugin_imports_first_has_its_own_settings_afterwards(site: Site) -> None:
    statement = "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.set_num_threads(7)\ntorch.manual_seed(5)"
    acme(site, statement, "imported")
    read = "(str(torch.get_default_dtype()), torch.get_num_threads(), torch.initial_seed() == 5)"
    code = (
        f"import json, sys\nfrom graftkit import PluginHost\nassert 'torch' not in sys.modules\n"
        f"host = PluginHost(autoload={{}})\nimport torch\nprint(json.dumps([{read}, host.notices]))"
    )

    def found(autoload: bool) -> Any:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site.folder), *sys.path])}
        command = [sys.executable, "-c", code.format(autoload)]
        return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    (settings, notices), (expected, nothing) = found(True), found(False)
    assert settings == expected and nothing == []
    assert "torch's default dtype, torch's threads and torch's random state" in notices[0]


def test_the_recipe_and_facts_that_hooks_see_can_not_be_changed(site: Site) -> None:
    own = {"training": {"seed": 0}, "export": [{"use": "peft"}]}
    run, stage = RunInfo(Path("x"), own), StageInfo("corpus", 1.0, own)
    for seen in (run.recipe, stage.facts):
        for change in (
            lambda seen: seen.update(a=1),
            lambda seen: seen["training"].update(seed=3),
            lambda seen: seen["training"].__setitem__("seed", 3),
            lambda seen: seen["export"].append(3),
            lambda seen: seen["export"].__setitem__(0, 3),
            lambda seen: seen["export"][0].pop("use"),
            lambda seen: seen["export"].sort(),
        ):
            with pytest.raises(TypeError, match="can't change"):
                change(seen)
        assert seen == own and json.loads(json.dumps(seen)) == own
        for plain in (copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))):
            plain["training"]["seed"] = 3
            plain["export"].append(4)
        assert seen == own
    own["training"]["seed"] = 5
    assert run.recipe["training"]["seed"] == 0
    with pytest.raises(AttributeError):
        run.status = "finished"  # type: ignore[misc]


def test_a_hook_that_changes_the_recipe_is_named(site: Site) -> None:
    hook = "@hookimpl\ndef graftkit_run_started(run):\n    run.recipe['training']['seed'] = 9\n"
    site.install("acme", f"from graftkit import hookimpl\n{hook}")
    with pytest.raises(HookError, match="acme 1.0: its hook graftkit_run_started raised TypeError: a plugin can't"):
        PluginHost().broadcast("graftkit_run_started", run=RUN)


def test_a_provider_can_not_change_the_fields_that_others_see(site: Site) -> None:
    source = """\
    from graftkit import Provider, ProviderConfig, hookimpl

    class Config(ProviderConfig):
        ranks: dict[str, int] = {}

    class Thing:
        def __init__(self, config):
            config.ranks["x"] = 9

    @hookimpl
    def graftkit_adapters():
        return [Provider(name="twig", target="acme:Thing", config="acme:Config")]
    """
    site.install("acme", source)
    registry = PluginHost().registry
    registered = registry.resolve("adapter", "twig")
    config = registry.config_class(registered).model_validate({"ranks": {"x": 1}})
    registry.create(registered, config)
    assert config.model_dump()["ranks"] == {"x": 1}


def test_one_hook_that_raises_does_not_keep_the_event_from_the_others() -> None:
    heard: list[str] = []

    class Listener:
        def __init__(self, name: str) -> None:
            self.__name__ = name

        @hookimpl
        def graftkit_run_finished(self, run: RunInfo) -> None:
            heard.append(self.__name__)
            raise RuntimeError(f"{self.__name__} fails")

    with pytest.raises(HookError, match="b fails") as caught:
        PluginHost(autoload=False, plugins=[Listener("a"), Listener("b")]).broadcast("graftkit_run_finished", run=RUN)
    assert heard == ["b", "a"] and "plugin 'a'" in caught.value.__notes__[0]


def test_what_a_hook_changes_by_force_is_its_own_copy() -> None:
    heard = []

    class Forcing:
        @hookimpl
        def graftkit_stage_finished(self, run: RunInfo, stage: StageInfo) -> None:
            heard.append((run.status, stage.seconds))
            object.__setattr__(run, "status", "finished")
            object.__setattr__(stage, "seconds", None)

    stage = StageInfo("corpus", 1.0)
    host = PluginHost(autoload=False, plugins=[Forcing(), type("Other", (Forcing,), {})()])
    host.broadcast("graftkit_stage_finished", run=RUN, stage=stage)
    assert heard == [("running", 1.0)] * 2 and (RUN.status, stage.seconds) == ("running", 1.0)


def test_the_state_of_a_process_is_cheap_to_keep() -> None:
    """What is looked at after each step costs less than a thousandth of a step of ten milliseconds."""
    import time

    state = ProcessState(cheap=True)
    best = min(_seconds(state, time.perf_counter) for _ in range(5))
    assert best < 10e-6


def _seconds(state: ProcessState, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(100):
        state.put_back()
    return (clock() - start) / 100


class _Tokenizer:
    """Has a tokenizer's members, of which none is asked."""

    vocab_size = 9
    special_tokens: ClassVar[dict[str, int]] = {}
    chat_template = None
    adds_bos = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "tokenizer":
            raise AttributeError(name)
        return lambda *_: None

    def decode(self, *_: object) -> object:
        return 3


class _Backend:
    def load(self, path: str) -> _Tokenizer:
        return _Tokenizer()


def test_what_each_hosts_plugin_makes_is_guarded_for_that_host() -> None:
    """Two hosts in one process have records of their own, which keep what a plugin does."""
    records = [PluginRecord("odd", "acme", "1.5", "acme") for _ in range(2)]
    for record in records:
        made = guarded_class(_Backend, record, "tokenizer", "odd")().load("x")
        assert vars(type(made))["_graftkit_plugin"] is record
        facts = {"target": f"{__name__}:_Backend", "name": "odd", "distribution": "acme", "version": "1.5"}
        assert vars(type(make_provider("tokenizer", facts, record)))["_graftkit_plugin"] is record
    assert type(make_provider("tokenizer", facts)) is type(make_provider("tokenizer", facts))
