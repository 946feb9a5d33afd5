"""mlx-lm is asked in a process of its own, which may fail, find no room, or be stopped."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from graftkit import Probe, ProofRequest
from graftkit.errors import ExportError
from graftkit.interfaces.temporary import is_no_room
from graftkit_mlx import program
from graftkit_mlx.child import ask
from safetensors.torch import save_file


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, source: str) -> None:
    """Puts another mlx_lm before the one that is installed."""
    (folder / "mlx_lm").mkdir()
    (folder / "mlx_lm" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "mlx-lm can't be imported: ModuleNotFoundError: No module named 'mlx_lm.utils'"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "mlx-lm: killed by SIGSEGV"),
        ("import os\nos._exit(3)", "mlx-lm: exit code 3"),
    ],
)
def test_an_mlx_lm_that_does_not_load_is_told_as_such(
    source: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, source)
    with pytest.raises(ExportError) as caught:
        ask("try_twin", tmp_path, tmp_path, ids=[])
    assert caught.value.message == told


@pytest.mark.parametrize(
    "error", ["RuntimeError('[write] Unable to write 9 bytes to file.')", f"OSError({errno.ENOSPC}, 'full')"]
)
def test_a_full_disk_is_no_fault_of_the_export(error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else a proof would say that the export failed, where nothing is known of it."""
    stand_in(monkeypatch, tmp_path, "")
    (tmp_path / "mlx_lm" / "utils.py").write_text(
        f"load_adapters = quantize_model = save_model = None\ndef load_model(*_, **__):\n    raise {error}\n"
    )
    with pytest.raises(OSError) as caught:
        ask("quantize", tmp_path, tmp_path, bits=4, group_size=32, target=str(tmp_path / "target"))
    assert is_no_room(caught.value) and caught.value.filename == str(tmp_path / "target")


def test_mlx_itself_says_so_where_a_file_finds_no_room(tmp_path: Path) -> None:
    source = f"""
import mlx.core as mx, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
mx.save_safetensors({str(tmp_path / "file.safetensors")!r}, {{"a": mx.zeros((100, 100))}})
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert "RuntimeError: [write] Unable to write" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a terminal's signals are POSIX's")
def test_a_terminals_ctrl_c_does_not_reach_the_process(tmp_path: Path) -> None:
    """The run would take its end for a fault of mlx-lm, and fail instead of stopping."""
    (tmp_path / "mlx_lm").mkdir()
    (tmp_path / "mlx_lm" / "__init__.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'started')!r}, 'w').close()\ntime.sleep(1)\nos._exit(3)\n"
    )
    source = f"""
import signal
from pathlib import Path
from graftkit import Probe, ProofRequest
from graftkit.errors import ExportError
from graftkit_mlx import program
from graftkit_mlx.child import ask
from safetensors.torch import save_file
signal.signal(signal.SIGINT, lambda *_: None)
try:
    ask("try_twin", Path({str(tmp_path)!r}), Path({str(tmp_path)!r}), ids=[])
except ExportError as error:
    print(error.message)
"""
    path = os.pathsep.join([str(tmp_path), *(each for each in sys.path if each)])
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    latest = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < latest:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "mlx-lm: exit code 3\n"


def test_what_a_proof_writes_lies_in_its_workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It goes with the workspace where the proof's process is killed."""
    folders = []

    def ask(what: str, model: Path, folder: Path, **settings: object) -> dict[str, object]:
        folders.append(folder)
        save_file({"0": torch.zeros(1, 4)}, folder / "logits.safetensors")
        return {}

    monkeypatch.setattr(program, "ask", ask)
    probes = [Probe((1, 2), (1,))]
    request = ProofRequest(tmp_path, probes, torch.nn.Identity, workspace=tmp_path)
    (logits,) = program.compute_logits(tmp_path, request)
    assert logits.shape == (1, 4) and [folder.parent for folder in folders] == [tmp_path]
    assert not folders[0].exists()
