"""The site of these documents: `make docs` builds it into build/site, with warnings as errors and without network.

The source folder is the repository's root, so that a link leads to the same place here, on a forge and in an editor.
"""

from __future__ import annotations

import os
import re
from typing import Any

import graftkit
from pydantic import BaseModel
from sphinx.application import Sphinx

project = "graftkit"
author = copyright = "the graftkit authors"  # Sphinx reads it by this name
version = release = graftkit.__version__

root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/*/*.md", "fixtures/plugins/*/README.md"]
exclude_patterns = [".*", "build", "runs", "core", "plugins", "tests", "dist"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4  # as forges make them of headings
myst_number_code_blocks: list[str] = []
maximum_signature_line_length = 100
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "literal"  # what single backticks are in docstrings

html_theme = "pydata_sphinx_theme"
html_title = "graftkit"
html_additional_pages = {"index": "to-the-index.html"}
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["pages.html"]}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "show_prev_next": False,
    "navbar_center": [],
    "navbar_persistent": ["search-button-field"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_with_keys": False,
}


_COLON = "\ue000"

for _name in graftkit.__all__:  # imported before autodoc, which would do so with `TYPE_CHECKING`
    getattr(graftkit, _name)


def setup(app: Sphinx) -> None:
    """Adds what no setting says."""
    app.connect("source-read", _navigation)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-docstring", _show_colons, priority=600)


def _navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Has the index's own lists be the site's navigation, so that no page is listed twice."""
    if page != root_doc:
        return
    for section in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]:
        links = re.findall(r"^- \[(.+?)\]\((.+?)\)", section, flags=re.MULTILINE)
        entries = "\n".join(f"{title} </{os.path.normpath(f'docs/{path}')}>" for title, path in links)
        caption = section.partition("\n")[0]
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def _signature(app: Sphinx, what: str, name: str, value: Any, *_: Any) -> tuple[str, None] | None:
    """Leaves out a recipe's, whose fields the reference of keys has."""
    return ("", None) if isinstance(value, type) and issubclass(value, BaseModel) else None


def _hide_colons(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Keeps napoleon from reading what stands before an attribute's colon as its type."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", _COLON) for line in lines]


def _show_colons(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]
