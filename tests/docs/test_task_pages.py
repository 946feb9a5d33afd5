"""The pages of tasks do what they say: their files are written, and their commands run, one after the other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import PAGES, Block, blocks
from graftkit.cli.main import main
from graftkit.testing import tiny_model_folder, tiny_records

TASKS = ["docs/quickstart.md", *(page for page in PAGES if page.startswith("docs/tasks/"))]

AFTER = dict.fromkeys(["docs/tasks/ship.md", "docs/tasks/evaluate.md"], "docs/tasks/chat.md")
"""Pages that go on with what another has left."""

NOT_RUN = {
    "toolkit run fixtures/quickstart.yaml": "a real model, which the tests marked `real_model` run",
    ".venv/bin/toolkit generate runs/quickstart": "likewise",
    "toolkit evaluate runs/quickstart": "likewise",
    "toolkit export runs/quickstart": "likewise",
    "toolkit plan mine.yaml": "test_blocks.py runs what `init` writes",
    "toolkit run mine.yaml": "likewise",
    "toolkit generate runs/mine": "likewise",
    "toolkit plan chat.yaml": "takes seconds; the page of small cards runs `plan`",
    "toolkit plan small.yaml --from-config": "takes seconds; tests/core/flow/memory/test_forecast_memory.py has it",
    "toolkit plan small.yaml --memory": "takes seconds; tests/core/flow/memory/test_forecast_memory.py has it",
    "toolkit run fits.yaml": "the recipe that the command before it writes",
    "toolkit export ./adapter": "takes seconds; tests/integration/test_adapters_of_others.py has it",
    "toolkit run chat.yaml --out runs/later": "takes seconds; tests/integration/test_proof_later.py has it",
    "toolkit verify runs/later": "likewise",
    "toolkit plugin check overlap": "takes an installed plugin; the tests of scaffolds install it and run its contract",
}
"""Commands of `toolkit` that are parsed only, by how they begin, and why."""

RECORDS = {
    "records.jsonl": tiny_records("chat", 40),
    "labels.jsonl": [{"text": f"it was {n}", "label": "good" if n % 2 else "bad"} for n in range(40)],
    "new.jsonl": tiny_records("chat", 8),
    "found.jsonl": [{"query": f"q {n}", "positive": f"it is {n}", "negative": f"it is {n + 9}"} for n in range(40)],
    "questions.jsonl": [{"question": f"what is {n}?", "answer": f"it is {n}"} for n in range(8)],
    "pairs.jsonl": [
        {
            "prompt": [{"role": "user", "content": f"say {n}"}],
            "chosen": [{"role": "assistant", "content": f"{n}!"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for n in range(40)
    ],
}
"""What the files hold besides the record that a page shows, which comes first."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages take for given: a model, records, texts."""
    folder = tmp_path_factory.mktemp("tasks")
    tiny_model_folder(folder / "my-model", max_position_embeddings=2048)
    (folder / "texts").mkdir()
    for number in range(20):
        (folder / "texts" / f"{number}.txt").write_text(f"graftkit is number {number} of some words\n" * 20)
    for name, records in RECORDS.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def done() -> set[str]:
    """The pages that have been gone through."""
    return set()


@pytest.mark.parametrize("page", TASKS)
def test_a_page_does_what_it_says(page: str, place: Path, done: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    for each in (AFTER.get(page, page), page):
        if each not in done:
            done.add(each)
            for block in blocks(each):
                follow(block, capsys)


def follow(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """Does what a block says to its reader."""
    if block.language == "json":
        shown = json.loads(block.text)
        records = RECORDS[block.file]
        assert records[0].keys() == shown.keys()
        Path(block.file).write_text("".join(json.dumps(record) + "\n" for record in [shown, *records]))
    elif block.language in ("yaml", "python"):
        assert block.file, f"{block}: what is the file's name?"
        Path(block.file).write_text(block.text)
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), {})
    else:
        assert block.language == "console", block
        for words in block.commands():
            run(block, words, capsys)


def run(block: Block, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Runs a command of `toolkit`; of another program, looks for the files that it is given."""
    line = " ".join(words)
    if words[0] != "toolkit" and not line.startswith(tuple(NOT_RUN)):
        given = [word.rpartition("=")[2] for word in words if "runs/" in word or "./" in word]
        assert [path for path in given if not Path(path).exists()] == [] or "quickstart" in line, line
        if words[0] == "ollama":
            (file,) = [text.split()[1] for text in Path(given[0]).read_text().splitlines() if text.startswith("FROM")]
            assert (Path(given[0]).parent / file).exists()
    elif not line.startswith(tuple(NOT_RUN)):
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert not ended.value.code, f"{block}: {line}\n{capsys.readouterr().err}"


def test_what_is_not_run_stands_in_a_page() -> None:
    lines = [" ".join(words) for page in TASKS for block in blocks(page) for words in block.commands()]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []
