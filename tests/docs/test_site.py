"""The documents as a site: it is built without a warning, and a browser shows it without network at any width."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import CHROMIUM, browser
from documents import PAGES, ROOT

BUILDERS = ("sphinx", "myst_parser", "pydata_sphinx_theme")
LOOKED_AT = (
    "docs/index",
    "README",
    "docs/recipe",
    "docs/records",
    "docs/tasks/small-card",
    "docs/reference/keys",
    "docs/reference/api",
)

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, BUILDERS)), reason="the site is built with graftkit[docs]"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    flags = [
        "--quiet",
        "--fail-on-warning",
        "--keep-going",
        "--conf-dir",
        "docs",
        "--doctree-dir",
        str(folder / "trees"),
    ]
    command = [sys.executable, "-m", "sphinx", *flags, ".", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_there(site: Path) -> None:
    assert [page for page in PAGES if not (site / page).with_suffix(".html").exists()] == []
    assert "docs/index.html" in (site / "index.html").read_text()
    assert "<dt" in (site / "docs/reference/api.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_browser_shows_it(site: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        for page in LOOKED_AT:
            for width in (390, 1280):
                shown = tab.show(site / f"{page}.html", width, dark=width == 390)
                assert [address for address in shown.requests if not address.startswith("file:")] == []
                assert shown.value("document.documentElement.scrollWidth") <= width, page
                assert shown.value("document.documentElement.dataset.theme") == ("dark" if width == 390 else "light")
