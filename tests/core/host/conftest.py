"""Installs little distributions for one test: a module and its *.dist-info on the path, as pip leaves them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

GROUP = "graftkit.plugins.v1"


class Site:
    """A folder on `sys.path` that distributions are installed into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        distribution: str,
        source: str = "",
        *,
        version: str = "1.0",
        groups: Mapping[str, Mapping[str, str]] | None = None,
    ) -> str:
        """Installs a distribution whose one module has this source; returns the module's name."""
        module = distribution.replace("-", "_")
        (self.folder / f"{module}.py").write_text(dedent(source))
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        entries = ""
        for group, points in (groups or {GROUP: {"main": module}}).items():
            entries += f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(entries)
        importlib.invalidate_caches()
        return module

    def registered(self, distribution: str, name: str, *, version: str = "1.0", provider: str = "") -> str:
        """Installs a distribution that offers one adapter."""
        module = distribution.replace("-", "_")
        source = f"""\
        from graftkit import Provider, hookimpl

        class Thing:
            pass

        @hookimpl
        def graftkit_adapters():
            return [Provider(name={name!r}, target="{module}:Thing"{provider and ", " + provider})]
        """
        return self.install(distribution, source, version=version)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder on the path; what was imported from it is forgotten again."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield Site(folder)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests reaches the hosts."""
    for name in ("DISABLE_PLUGINS", "PLUGIN_AUTOLOAD", "STRICT_PLUGINS", "PLUGIN_IMPORT_SECONDS"):
        monkeypatch.delenv(f"GRAFTKIT_{name}", raising=False)
