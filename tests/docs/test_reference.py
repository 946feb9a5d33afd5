"""The generated pages say what the code says, and the page of messages those that there are."""

from __future__ import annotations

import ast
import re
import runpy

import pytest
from documents import ROOT, text_of
from graftkit.interfaces.objective_config import (
    AnyObjectiveConfig,
    MaskedConfig,
    RetrievalConfig,
    SampledConfig,
    TeacherConfig,
)

GENERATED = runpy.run_path(str(ROOT / "docs/generate.py"))
PAGES: dict[str, str] = GENERATED["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert text_of(f"docs/reference/{name}") == PAGES[name], "write them anew: make reference"


@pytest.mark.parametrize("config", [TeacherConfig, SampledConfig, MaskedConfig, RetrievalConfig])
def test_the_page_of_objectives_names_the_fields_that_core_gives_them(config: type[AnyObjectiveConfig]) -> None:
    page = text_of("docs/plugins/objective.md")
    [said] = re.findall(rf"^- `{config.__name__}`(.*?)(?=^- |^$)", page, re.MULTILINE | re.DOTALL)
    assert [field for field in config.model_fields if f"`{field}`" not in said] == []


def test_every_message_that_is_explained_is_there() -> None:
    messages = {
        "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        if isinstance(node, ast.JoinedStr)
        else str(node.value)
        for folder in ("core", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }
    explained = re.findall(r"^\| `([^`]+)` \|", text_of("docs/when-things-go-wrong.md"), re.MULTILINE)
    assert len(explained) > 20
    patterns = {message: ".*".join(map(re.escape, message.split("…"))) for message in explained}
    text = "\n".join(messages)
    assert [message for message, pattern in patterns.items() if not re.search(pattern, text)] == []


def test_a_name_in_backticks_ends_before_no_letter() -> None:
    """In a docstring, which the site reads as reStructuredText: it would go on to the next backtick."""
    odd = [
        (path.name, node.lineno if isinstance(node, ast.ClassDef | ast.FunctionDef) else 1, found.group())
        for folder in ("core", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for found in re.finditer(r"`[^`]+`.?", re.sub("``.*?``", "", ast.get_docstring(node) or "", flags=re.DOTALL))
        if found.group()[-1].isalnum() and "\n\n" not in found.group()
    ]
    assert odd == []
