"""Compiles the simulated device's library against the installed torch, once for each state of its source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

__all__ = ["build"]

SOURCE = Path(__file__).with_name("device.cpp")


def build() -> Path:
    """Returns where the library lies; takes some ten seconds when it is not there yet.

    Raises:
        FileNotFoundError: There is no C++ compiler.
        subprocess.CalledProcessError: The source does not fit the installed torch.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if compiler is None:
        raise FileNotFoundError("the simulated CUDA device needs a C++ compiler: c++, g++ or clang++")
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch = Path(spec.origin).parent
    state = hashlib.sha256(SOURCE.read_bytes() + (torch / "version.py").read_bytes()).hexdigest()[:16]
    library = SOURCE.parents[2] / "build" / f"simulated-cuda-{state}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        made = library.with_suffix(f".{os.getpid()}")
        includes = [f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}"]
        links = [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch / 'lib'}"]
        command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", *includes, str(SOURCE), "-o", str(made), *links]
        subprocess.run(command, check=True, capture_output=True, text=True)
        made.replace(library)
    return library
