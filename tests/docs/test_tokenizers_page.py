"""Every command and the example on the tokenizers' page run as they stand there, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from graftkit import PluginHost
from graftkit.cli.main import main
from graftkit.testing import tiny_tokenizer_files

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tokenizers.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page's commands name: a base, documents, sources."""
    for folder in ("my-model", "docs", "src/deep"):
        (tmp_path / folder).mkdir(parents=True)
    for name, data in tiny_tokenizer_files().items():
        (tmp_path / "my-model" / name).write_bytes(data)
    for path in ROOT.glob("docs/*.md"):
        (tmp_path / "docs" / path.name).write_bytes(path.read_bytes()[:8000])
    for path in ROOT.glob("core/graftkit/corpus/*.py"):
        (tmp_path / "src/deep" / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_and_the_example_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert [shlex.split(line)[2] for line in commands] == ["analyze", "extend", "train", "train", "compare"]
    for line in commands:
        with pytest.raises(SystemExit) as done:
            main(shlex.split(line)[1:])
        assert not done.value.code, f"{line}\n{capsys.readouterr().err}"
    assert {"analysis.svg", "my-model-200", "mine", "mine-unigram", "comparison.html"} <= {
        path.name for path in place.iterdir()
    }
    capsys.readouterr()
    (example,) = blocks("python")
    exec(example, {})
    assert re.fullmatch(r"(\d+ \d\.\d\d bytes a token, \d+\.\d% saved\n){3}take \d+\n", capsys.readouterr().out)


def test_every_backend_is_in_the_table() -> None:
    table = PAGE.partition("| backend |")[2].partition("\n\n")[0]
    assert [
        registered.provider.name
        for registered in PluginHost().registry.providers("tokenizer")
        if f"`{registered.provider.name}`" not in table
    ] == []
