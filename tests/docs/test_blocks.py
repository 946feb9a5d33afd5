"""Every block of code in every document is run or checked, or stands in a table here with the reason why not."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import graftkit
import pytest
from click.testing import CliRunner
from documents import PAGES, ROOT, Block, blocks, leaf_command, text_of
from graftkit.cli.main import cli
from graftkit.recipe.bind import bind
from graftkit.recipe.document import parse_value
from graftkit.recipe.load import load_recipe
from graftkit.recipe.schema.recipe import Recipe
from graftkit.testing import isolated_host, tiny_records

HOST = isolated_host()
BLOCKS = [block for page in PAGES for block in blocks(page)]

RUN = {
    "docs/tasks/*": "test_task_pages.py: files are written, commands and programs are run, in their order",
    "docs/tokenizers.md": "test_tokenizers_page.py: commands and the example are run",
    "docs/embedding.md": "test_guide.py: both examples are run",
    "docs/plugins/*": "test_guide.py: the files are what `toolkit plugin new` writes, whose tests install and run them",
    "docs/reference/*": "test_reference.py: what the code says today",
    "docs/coming-from.md": "test_coming_from.py: what the conversion writes",
}
"""Pages whose blocks another file runs; their commands and recipes are checked here, too."""

NEITHER = {
    ("docs/architecture.md", "core/graftkit/"): "a picture of folders, compared with them in test_docs.py",
    ("docs/architecture.md", "recipe -> plan"): "a picture of what follows on what",
    ("docs/scale.md", "torchrun --nnodes"): "takes two machines; its command of toolkit is parsed",
    ("docs/scale.md", "#SBATCH"): "takes SLURM, which the page says; its command of toolkit is parsed",
    ("docs/tried.md", "PYTHONPATH=tests"): "tries thousands of inputs; tests/hostile runs some",
    ("docs/tokenizers.md", "671 files"): "what a command wrote, with models that are not here",
    ("docs/tokenizers.md", "$ toolkit tokenizer analyze package:"): "takes 40 s; its command is parsed",
}
"""Blocks of no language or of text, by how they begin, and why nothing runs them."""

OTHER_PROGRAMS = {
    "llama-server": "llama.cpp's server; the files that it is given are made by the commands before",
    "ollama": "not on PyPI; the file that it is given is made by the commands before",
    "mlx_lm.generate": "loads a folder that the command before it has made; the proof of an export does so",
    "mlx_lm.server": "likewise",
    "vllm": "needs a GPU; the folders that it is given are made by the commands before",
    "curl": "asks the server that the command before it has started; test_serve.py asks one",
    "sqlite3": "SQLite's own shell, on what the plugin wrote",
    "cd": "goes into the folder that the command before it has made",
    "git": "keeps that folder",
    "python3.11": "makes an environment",
}
"""Commands that are not graftkit's, by their first word, and why nothing runs them."""


COMMANDS_OF_PLUGINS = {"runs": "a plugin's command, which the page has just written"}
"""Commands of toolkit that nothing here knows, and why."""


def runs_elsewhere(block: Block) -> bool:
    return any(Path(block.page).match(pattern) for pattern in RUN)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_what_it_says(block: Block) -> None:
    if any(block.page == page and block.text.lstrip().startswith(beginning) for page, beginning in NEITHER):
        for words in block.commands():
            check_command(block, words)
        return
    check = CHECKS.get(block.language) or (runs_elsewhere(block) and block.language in ("text", "{eval-rst}") and id)
    assert check, f"{block}: neither run nor checked; add it to a table here, or name its language"
    check(block)


def recipe_of(block: Block) -> dict[str, Any]:
    """Returns a block's recipe without settings of the example plugins, which are not installed here."""
    return {name: said for name, said in block.value().items() if name != "plugins"}


def is_a_recipe(block: Block) -> None:
    value = recipe_of(block)
    if "data" not in value and not runs_elsewhere(block):  # a part of one
        value = {"model": "./m", "data": {"train": "r.jsonl"}, **value}
    if block.page != "docs/coming-from.md":  # whose other half is other programs'
        bind(load_recipe(value), HOST)


def has_commands(block: Block) -> None:
    assert block.commands(), f"{block}: no line begins with a prompt"
    for words in block.commands():
        for command in commands_in(words):
            check_command(block, command)


def commands_in(words: list[str]) -> list[list[str]]:
    """Returns the commands of a line that joins some."""
    line = " ".join("\0" if word in ("&&", "|") else word.replace(" ", "\1") for word in words)
    return [[word.replace("\1", " ") for word in part.split()] for part in line.split("\0")]


def check_command(block: Block, words: list[str]) -> None:
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "toolkit":
        parse(rest)
    elif program == "pip":
        is_installable(rest)
    elif program == "make":
        assert re.search(rf"^{rest[0]}: ", (ROOT / "Makefile").read_text(), re.MULTILINE), rest
    elif program == "python" and rest[0].endswith(".py"):
        assert (ROOT / rest[0]).exists() or any(rest[0] == other.file for other in blocks(block.page)), rest
    elif program == "python":
        assert rest[:2] in (["-m", "pytest"], ["-m", "build"]), rest
    else:
        assert program in OTHER_PROGRAMS or words[:2] == [".", ".venv/bin/activate"], f"{block}: {words}"


def parse(words: list[str]) -> None:
    """Has click parse a command of `toolkit`, without running it: every option exists, and nothing is missing."""
    if words[0] in COMMANDS_OF_PLUGINS:
        return
    command, rest = leaf_command(words)
    assert not isinstance(command, click.Group), words
    command.make_context(command.name, rest)


def is_installable(words: list[str]) -> None:
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = (ROOT / "constraints.txt").read_text()
    names = [word for at, word in enumerate(words[1:]) if not word.startswith("-") and words[at] != "-c"]
    for name, extras in (re.fullmatch(r"([\w.-]+)(?:\[(.*)\])?", name).groups() for name in names):  # type: ignore[union-attr]
        assert name in (".", "graftkit", "build", "twine") or name.startswith("graftkit-") or f"\n{name}==" in pinned
        known = {*project["optional-dependencies"], "test"}  # that of a plugin which the page has just written
        assert {*(extras or "testing").split(",")} <= known


def is_python(block: Block) -> None:
    """What it imports is there, and the names that it takes of graftkit."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and not is_a_new_plugin(node.module or ""):
            module = importlib.import_module(node.module or "")
            assert [name.name for name in node.names if not hasattr(module, name.name)] == [], block
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "graftkit":
            assert hasattr(graftkit, node.attr), f"{block}: graftkit.{node.attr}"


def is_a_new_plugin(module: str) -> bool:
    """Whether it is what a page of `docs/plugins` has just written."""
    return module.startswith("graftkit_") and importlib.util.find_spec(module.partition(".")[0]) is None


CHECKS: dict[str, Callable[[Block], object]] = {
    "yaml": is_a_recipe,
    "console": has_commands,
    "python": is_python,
    "json": lambda block: [json.loads(block.text)],
    "toml": lambda block: tomllib.loads(block.text),
}


def test_no_table_names_what_is_gone() -> None:
    for page, beginning in NEITHER:
        assert any(block.page == page and block.text.lstrip().startswith(beginning) for block in BLOCKS), beginning
    for program in OTHER_PROGRAMS:
        assert any(program in block.text for block in BLOCKS if block.language == "console"), program
    for pattern, where in RUN.items():
        assert any(Path(page).match(pattern) for page in PAGES)
        assert (Path(__file__).parent / where.partition(":")[0]).exists(), where


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_in_the_text_exist(page: str) -> None:
    """Spans such as `toolkit run RECIPE --resume`, and blocks of other programs that call it."""
    if page == "CHANGELOG.md":
        return
    spans = re.findall(r"`toolkit ([^`]+)`", text_of(page)) + re.findall(r"--no-python toolkit (.+)", text_of(page))
    for words in (span.replace(" / ", "/").split() for span in spans):
        if not re.fullmatch("[a-z]+", words[0]) or words[0] in COMMANDS_OF_PLUGINS:
            continue
        command, _ = leaf_command([word for word in words if re.fullmatch("[a-z]+", word)][: 1 + (words[0] in GROUPS)])
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        named = {found for word in words for found in re.findall(r"(?<![\w-])--[a-z-]+", word)}
        assert named <= options | {"--help", "--max-restarts"}, f"{page}: toolkit {' '.join(words)}"


GROUPS = ("tokenizer", "plugin")

NO_RECIPE = {
    "overlap": "a plugin's metric, which the page has just written",
    "adapter: {from: ": "a folder, which says what the recipe leaves out",
    "...": "the reader's own",
}
"""What parts of recipes in the text may hold that nothing here knows, and why."""


@pytest.mark.parametrize("page", [page for page in PAGES if re.match(r"docs/(?!reference/|plugins/)", page)])
def test_parts_of_recipes_in_the_text_are_such(page: str) -> None:
    """Spans such as `memory: {checkpoint: blocks}`."""
    sections = "|".join(Recipe.model_fields)
    for span in re.findall(rf"`((?:{sections}): [^`]+)`", text_of(page)):
        if not any(word in span for word in NO_RECIPE):
            value = {"model": "./m", "data": {}, "training": {}, **parse_value(span, f"{page}: {span}")}
            if isinstance(value["data"], dict):
                value["data"] = {"train": "r.jsonl", **value["data"]}
            bind(load_recipe(value), HOST)


KINDS_OF_RECORDS = {
    "classification": [{"text": f"it was {n}", "label": "good" if n % 2 else "bad"} for n in range(20)],
    "multi-label-classification": [{"text": f"it was {n}", "labels": ["good"] * (n % 2)} for n in range(20)],
    "regression": [{"text": f"it was {n}", "score": n / 8} for n in range(20)],
    "token-classification": [{"tokens": ["Ada", f"is{n}"], "tags": ["B-PER", "O"]} for n in range(20)],
    "embedding": [{"query": f"what is {n}", "positive": f"it is {n}", "negative": "none"} for n in range(20)],
    "similarity": [{"sentence1": f"it was {n}", "sentence2": f"it is {n}", "score": n / 8} for n in range(20)],
    "preference": [{"prompt": f"say {n}", "chosen": f"{n}!", "rejected": "no"} for n in range(20)],
    "chat": tiny_records("chat", 20),
}


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "yaml" and not runs_elsewhere(block)], ids=str
)
def test_a_recipe_can_be_planned(block: Block, tiny_model: Path, tmp_path: Path) -> None:
    """On a tiny model, and records of the kind that its objective learns from."""
    value = {"model": "", "data": {}, **recipe_of(block)}
    objective = value.get("objective", "sft")
    name = objective if isinstance(objective, str) else objective["use"]
    kind = "preference" if name in ("dpo", "reward") else name if name in KINDS_OF_RECORDS else "chat"
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in KINDS_OF_RECORDS[kind]))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "text.txt").write_text("some words of a text\n" * 50)
    value["model"] = str(tiny_model)
    value["data"] = {**value["data"], "train": str(records), "holdout": 0.1}
    value["data"]["max_length"] = min(512, value["data"].get("max_length") or 512)  # the tiny model's context
    if name == "distill":
        value["objective"] = {**objective, "teacher": str(tiny_model)}
    if "tokenizer" in value:
        value["tokenizer"]["extend"]["corpus"] = str(tmp_path / "src")
    graftkit.plan(value)


def test_the_plugins_page_writes_a_model_and_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [program] = [block for block in blocks("docs/plugins.md") if "tiny_model_folder" in block.text]
    exec(program.text, {})
    [commands] = [block for block in blocks("docs/plugins.md") if block.language == "console"]
    for words in commands.commands():
        CliRunner().invoke(cli, words[1:], catch_exceptions=False)
    assert json.loads((tmp_path / "runs/mine/manifest.json").read_text())["status"] == "finished"
