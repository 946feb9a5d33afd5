"""`toolkit tokenizer` as a user types it: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit import PluginHost
from graftkit.cli.main import main
from graftkit.cli.tables import show_table
from graftkit.flow.base_files.find_tokenizer import find_tokenizer
from graftkit.interfaces.vocabulary_limits import MOST_IDS, MOST_PIECES
from graftkit.testing import tiny_tokenizer_files

SENTENCES = [f"the rain in spain number {n} stays mainly in the plain, naïve {n % 7}\n" for n in range(400)]

Toolkit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with texts in it and a tokenizer of bytes in `base`."""
    (tmp_path / "texts").mkdir()
    for n in range(8):
        (tmp_path / "texts" / f"{n}.txt").write_text("".join(SENTENCES[n::8]) + f"file {n}\n")
    (tmp_path / "base").mkdir()
    for name, data in tiny_tokenizer_files().items():
        (tmp_path / "base" / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toolkit(place: Path, capsys: pytest.CaptureFixture[str]) -> Toolkit:
    """Runs a command; returns its exit code, its output and what it wrote to standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["tokenizer", *arguments])
        written = capsys.readouterr()
        return int(done.value.code or 0), written.out, written.err

    return run


def answer(toolkit: Toolkit, *arguments: str) -> Any:
    code, output, errors = toolkit(*arguments, "--json")
    assert code == 0, errors
    return json.loads(output)


def test_a_tokenizer_is_trained_and_says_what_it_is(toolkit: Toolkit, place: Path) -> None:
    code, output, errors = toolkit(
        *("train", "texts", "--use", "byte-level", "--vocab-size", "300", "--special", "<|pad|>"),
        *("--role", "eos=<|end|>", "--option", "min_frequency=3", "--out", "made/mine"),
    )
    assert code == 0, errors
    assert "byte-level tokenizer of 300 ids from 8 files" in output and "every text comes back" in output
    assert "training ..." in errors and "\x1b" not in output + errors
    record = json.loads((place / "made/mine/training.json").read_text())
    assert record["options"]["min_frequency"] == 3 and record["vocab_size"] == 300 and record["lossless"]
    assert set(record["files"]) | {"training.json"} == {path.name for path in (place / "made/mine").iterdir()}
    facts = answer(toolkit, "compare", "made/mine", "--on", "texts")["mine"]
    assert facts["ids"] == 300 and facts["bytes_per_token"] == pytest.approx(record["bytes_per_token"])


def test_fewer_ids_than_asked_for_are_told_and_a_template_is_kept(toolkit: Toolkit, place: Path) -> None:
    (place / "chat.jinja").write_text("{{ messages[0]['content'] }}")
    line = ("train", "texts", "--use", "byte-level", "--vocab-size", "9000", "--out", "mine")
    code, output, _ = toolkit(*line, "--chat-template", "chat.jinja")
    assert code == 0 and "; the texts give no more" in output
    assert find_tokenizer(PluginHost(), "mine").tokenizer.chat_template == (place / "chat.jinja").read_text()
    code, _, errors = toolkit(*line, "--overwrite", "--chat-template", "none.jinja")
    assert code == 2 and "--chat-template none.jinja: can't be read: No such file" in errors
    edited = place / "mine" / "tokenizer_config.json"
    edited.write_text(edited.read_text().replace("messages[0]", "messages[1]"))
    code, _, errors = toolkit(*line, "--overwrite")
    assert code == 2 and "or that were edited since: tokenizer_config.json" in errors
    assert "messages[1]" in edited.read_text()


def test_a_table_on_a_terminal_has_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_table(["", "[a]"], [["ids", "5"], ["x [bold]y", "17"]])
    output = capsys.readouterr().out
    assert "│ ids" in output and "[a]" in output and "x [bold]y" in output
    monkeypatch.setenv("COLUMNS", "9")
    show_table(["", "[a]"], [["ids", "5"], ["x [bold]y", "17"]])
    output = capsys.readouterr().out
    assert "│" not in output and "ids          5\nx [bold]y   17\n" in output


def test_a_tokenizer_is_saved_in_the_formats_that_its_backend_has(toolkit: Toolkit, place: Path) -> None:
    line = ("train", "texts", "--use", "byte-level", "--vocab-size", "300", "--out", "mine")
    assert toolkit(*line, "--format", "huggingface", "--format", "tiktoken")[0] == 0
    assert {"tokenizer.json", "tokenizer.tiktoken"} < {path.name for path in (place / "mine").iterdir()}
    facts = answer(toolkit, "compare", "mine", "mine/tokenizer.tiktoken", "--on", "texts")
    assert facts["mine"]["tokens"] == facts["mine/tokenizer.tiktoken"]["tokens"]
    code, _, errors = toolkit(*line, "--format", "hugingface", "--overwrite")
    assert code == 2 and "--format: no format is called 'hugingface'\nDid you mean 'huggingface'?" in errors


def test_an_extension_lists_its_tokens(toolkit: Toolkit, place: Path) -> None:
    code, output, errors = toolkit("extend", "base", "texts", "--tokens", "50", "--word", "graftkit", "--out", "more")
    assert code == 0, errors
    assert "base: 259 ids, 310 now" in output and "50 tokens learnt, 1 given as words" in output
    assert "% fewer" in output and "scaffolding" in output and "saved more" in output
    record = json.loads((place / "more/extension.json").read_text())
    assert [token["id"] for token in record["tokens"]] == list(range(259, 310))
    words = [token for token in record["tokens"] if token["text"] == "graftkit"]
    assert len(words) == 1 and len(words[0]["parts"]) == 8
    facts = answer(toolkit, "compare", "base", "more", "--on", "texts")
    assert facts["base"]["tokens"] == record["base_tokens"] and facts["more"]["tokens"] == record["tokens_after"]
    again = answer(toolkit, "extend", "more", "texts", "--tokens", "5", "--out", "most")
    assert again["base"]["fingerprint"] == record["fingerprint"], "what was extended can be extended"


def test_words_alone_need_no_texts(toolkit: Toolkit, place: Path) -> None:
    found = answer(toolkit, "extend", "base", "--tokens", "0", "--word", "graftkit", "--out", "more")
    assert [token["text"] for token in found["tokens"]] == ["graftkit"] and found["corpus"] is None


def test_an_analysis_says_how_many_and_draws_it(toolkit: Toolkit, place: Path) -> None:
    line = ("analyze", "base", "texts", "--tokens", "10,40,70", "--holdout", "0.3")
    code, output, errors = toolkit(*line, "--out", "curve.svg")
    assert code == 0, errors
    assert "holdout files" in output and "0 (base)" in output and "Worth it: take 40 tokens" in output
    assert "Only " in output and "bytes are held out" in output, "a small corpus is told of"
    assert "advised: 40 tokens" in (place / "curve.svg").read_text()
    assert "More may save more: try --tokens 10,20,40." in toolkit(*line[:4], "10")[1]
    facts = answer(toolkit, *line, "--out", "curve.html")
    assert "<svg" in (page := (place / "curve.html").read_text()) and "<td>0 (base)</td>" in page
    assert facts["advised_tokens"] == 40 and [point["asked"] for point in facts["points"]] == [10, 40, 70]
    assert 0 < len(facts["holdout_files"]) < 8


def test_what_is_not_worth_it_is_told(toolkit: Toolkit, place: Path) -> None:
    assert toolkit("extend", "base", "texts", "--tokens", "70", "--out", "more")[0] == 0
    code, output, _ = toolkit("analyze", "more", "texts", "--tokens", "1")
    assert code == 0 and "Not worth it: 1 tokens would save" in output


@pytest.mark.parametrize(
    ("family", "losses"),
    [
        ("wordpiece", "Extended, it still loses"),
        ("word", "Extended, it still loses"),
        ("bpe", ""),
        ("character", ""),
        ("sentencepiece", ""),
    ],
)
def test_every_family_is_analyzed(toolkit: Toolkit, place: Path, family: str, losses: str) -> None:
    size = "400" if family != "word" else "100"
    assert toolkit("train", "texts", "--use", family, "--vocab-size", size, "--out", "mine")[0] == 0
    code, output, errors = toolkit("analyze", "mine", "base", "texts", "--tokens", "5,20")
    assert code == 0, errors
    assert "5 " in output and losses in output and ("The base loses" in output) == bool(losses)
    facts = answer(toolkit, "analyze", "mine", "base", "texts", "--tokens", "5,20")
    assert facts["points"][0]["asked"] == 5 and facts["points"][-1]["asked"] <= 20


def test_a_base_that_lacks_bytes_is_told_that_extending_adds_them(toolkit: Toolkit, place: Path) -> None:
    spec = json.loads((place / "base/tokenizer.json").read_text())
    spec["model"]["vocab"]["unused"] = spec["model"]["vocab"].pop("Ã")
    (place / "base/tokenizer.json").write_text(json.dumps(spec))
    _, output, _ = toolkit("analyze", "base", "texts", "--tokens", "20")
    assert "The base loses 1 character of these texts: 'ï' (" in output
    assert "Extended, it loses none: `extend` adds the bytes that it lacks." in output
    _, output, _ = toolkit("extend", "base", "texts", "--tokens", "20", "--out", "more")
    assert "bytes that the base lacked, tokens of their own now: 1" in output and "still lost" not in output


def test_a_models_analysis_tells_its_parameters(toolkit: Toolkit, tiny_model: Path) -> None:
    facts = answer(toolkit, "analyze", str(tiny_model), "texts", "--tokens", "10,70")
    assert [point["parameters"] for point in facts["points"]] == [0, (259 + 70 - 320) * 64]


def test_a_comparison_stands_side_by_side(toolkit: Toolkit, place: Path) -> None:
    toolkit("extend", "base", "texts", "--tokens", "50", "--out", "more")
    code, output, _ = toolkit("compare", "base", "more", "--on", "texts/0.txt", "texts/1.txt", "--out", "bars.png")
    assert code == 0
    lines = {line.split("  ")[0]: line.split()[-2:] for line in output.splitlines() if line}
    assert (
        lines["ids"] == ["259", "309"]
        and lines["bytes/token"][0] == "1.000"
        and lines["lossless, as declared"] == ["yes", "yes"]
    )
    assert "  Latin" in output and "  digits" in output and output.startswith("2 files, ")
    assert (place / "bars.png").read_bytes().startswith(b"\x89PNG")


WRONG: dict[str, tuple[str, list[str]]] = {
    "no texts": ("train none.txt --use byte-level --vocab-size 300 --out x", ["none.txt: no such file or folder"]),
    "no backend": ("train texts --use byte-levl --vocab-size 300 --out x", ["'byte-levl'", "'byte-level'"]),
    "a backend that trains none": (
        "train texts --use huggingface --vocab-size 300 --out x",
        ["'huggingface' can't train", "These can: ", "byte-level"],
    ),
    "an unknown option": (
        "train texts --use byte-level --vocab-size 300 --option min_freq=3 --out x",
        ["--option: unknown key 'min_freq'", "Did you mean 'min_frequency'?"],
    ),
    "an option of a wrong type": (
        "train texts --use byte-level --vocab-size 300 --option min_frequency=often --out x",
        ["--option: min_frequency: must be an integer, not 'often'"],
    ),
    "an option without a value": (
        "train texts --use byte-level --vocab-size 300 --option min_frequency --out x",
        ["--option min_frequency: the form is KEY=VALUE"],
    ),
    "an unknown role": (
        "train texts --use byte-level --vocab-size 300 --role oes=a --out x",
        ["'oes' is no role", "Did you mean 'eos'?"],
    ),
    "a role said twice": (
        "train texts --use byte-level --vocab-size 300 --role eos=a --role eos=b --out x",
        ["--role eos=b: 'eos' is 'a' already"],
    ),
    "a template that is none": (
        "train texts --use byte-level --vocab-size 300 --chat-template broken.jinja --out x",
        ["--chat-template broken.jinja: the chat template can't be read: "],
    ),
    "a vocabulary too small": ("train texts --use byte-level --vocab-size 100 --out x", ["256"]),
    "a folder with something else": (
        "train texts --use byte-level --vocab-size 300 --out base --overwrite",
        ["base: it holds files that no `toolkit tokenizer` wrote, or that were edited since: tokenizer.json"],
    ),
    "a folder that is in use": ("extend base texts --tokens 5 --out base", ["base: it is not empty", "--overwrite"]),
    "a folder that is a file": ("extend base texts --tokens 5 --out texts/0.txt", ["texts/0.txt: it is a file"]),
    "a folder that is a link to nothing": (
        "extend base texts --tokens 5 --out link",
        ["link: it is a link to nothing"],
    ),
    "a word that a byte is written as": ("extend base --tokens 0 --word é --out x", ["'é'", "it is a piece already"]),
    "no base": ("extend bsae texts --tokens 5 --out x", ["bsae: no such folder"]),
    "no base in a folder that is there": ("extend texts/bsae texts --tokens 5 --out x", ["texts/bsae: no such folder"]),
    "more tokens than there may be ids": (
        f"extend base texts --tokens {MOST_IDS - 10} --out x",
        [f"{MOST_IDS - 10:,} tokens after the base's ", f"a tokenizer may have {MOST_IDS:,} ids", "tokens at most."],
    ),
    "more tokens than the base's model may have": (
        f"extend base texts --tokens {MOST_PIECES - 10} --out x",
        [f"{MOST_PIECES - 10:,} tokens after the ", f"it may have {MOST_PIECES:,}", "tokens at most."],
    ),
    "more tokens to try than there may be ids": (
        f"analyze base texts --tokens 5,{MOST_IDS - 10}",
        [f"may have {MOST_IDS:,} ids"],
    ),
    "a vocabulary larger than any": (
        f"train texts --use byte-level --vocab-size {MOST_PIECES + 1} --out x",
        [f"2<=x<={MOST_PIECES}"],
    ),
    "no texts to learn from": ("extend base --tokens 5 --out x", ["name some FILES"]),
    "a base that is none": ("extend texts texts --tokens 5 --out x", ["texts: no tokenizer backend reads it"]),
    "numbers that are none": ("analyze base texts --tokens 5,many", ["'5,many' is no list of whole numbers"]),
    "a share that is no number": ("analyze base texts --holdout nan", ["a share of nan can't be held out"]),
    "a picture of another kind": ("analyze base texts --out curve.gif", ["curve.gif: a picture's name ends in .svg"]),
    "a picture nowhere": ("compare base --on texts --out no/bars.svg", ["no: there is no such folder"]),
    "too little text": ("analyze base base/tokenizer_config.json", ["too little text"]),
    "no corpus": ("compare base", ["--on"]),
    "an unknown command": ("analyse base texts", ["No such command 'analyse'", "'analyze'"]),
    "texts that are not UTF-8": ("compare base --on latin.txt", ["latin.txt:2: not UTF-8: byte 0xe9"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_in_one_message(toolkit: Toolkit, place: Path, case: str) -> None:
    (place / "latin.txt").write_bytes(b"fine\n\xe9t\xe9\n")
    (place / "broken.jinja").write_text("{% for message in")
    (place / "link").symlink_to("none")
    (place / "base/tokenizer_config.json").write_text("{}")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    line, expected = WRONG[case]
    code, output, errors = toolkit(*line.split())
    assert code == 2 and not output, errors
    assert "Traceback" not in errors and "This should have been caught" not in errors
    for fragment in expected:
        assert fragment in errors
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before, "nothing is left behind"


def test_only_what_a_tokenizer_command_wrote_is_overwritten(toolkit: Toolkit, place: Path) -> None:
    line = ("extend", "base", "texts", "--tokens", "5", "--out", "more")
    assert toolkit(*line)[0] == 0
    assert toolkit(*line)[0] == 2 and toolkit(*line, "--overwrite")[0] == 0
    (place / "more/notes.txt").write_text("precious")
    code, _, errors = toolkit(*line, "--overwrite")
    assert code == 2 and "notes.txt" in errors and (place / "more/notes.txt").exists()
    (place / "more/notes.txt").unlink()
    (place / "more/weights").symlink_to("..")
    code, _, errors = toolkit(*line, "--overwrite")
    assert code == 2 and "weights" in errors and (place / "more/weights").is_symlink()


def test_what_came_into_the_folder_meanwhile_is_not_overwritten(
    toolkit: Toolkit, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: object) -> dict[str, Any]:
        (place / "more").mkdir()
        (place / "more/notes.txt").write_text("precious")
        return {}

    monkeypatch.setattr("graftkit.vocabulary.record.extension_record", meanwhile)
    code, _, errors = toolkit("extend", "base", "texts", "--tokens", "5", "--out", "more")
    assert code == 2 and "more: it is not empty" in errors
    assert [path.name for path in place.glob("*more*/*")] == ["notes.txt"]


def test_a_tokenizer_is_saved_where_a_link_leads(toolkit: Toolkit, place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "link").symlink_to("elsewhere")
    assert toolkit("extend", "base", "texts", "--tokens", "5", "--out", "link")[0] == 0
    assert (place / "link").is_symlink() and (place / "elsewhere/tokenizer.json").is_file()


KILLED = """
import os, pathlib, signal, sys
from graftkit.cli.main import main
from graftkit.store import folders

def kill(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "halfway":
    folders._sync_tree = kill
elif sys.argv[1] == "replacing":
    rename, names = pathlib.Path.rename, []
    def once(self, target):
        names.append(self.name)
        return kill() if self.name.endswith(".partial") else rename(self, target)
    pathlib.Path.rename = once
else:
    os.fsync = kill
main(sys.argv[2:])
"""

WRITING = {
    "train": ("tokenizer", "train", "texts", "--use", "byte-level", "--vocab-size", "300", "--out", "made/mine"),
    "extend": ("tokenizer", "extend", "base", "texts", "--tokens", "5", "--out", "made/mine"),
    "analyze": ("tokenizer", "analyze", "base", "texts", "--tokens", "5", "--out", "made/curve.svg"),
    "new": ("plugin", "new", "mine", "--kind", "adapter", "--in", "made"),
}


@pytest.mark.parametrize("when", ["halfway", "replacing", "flushing"])
@pytest.mark.parametrize("which", ["train", "extend"])
def test_what_a_killed_tokenizer_command_left_is_swept_by_the_next_one(
    toolkit: Toolkit, place: Path, capsys: pytest.CaptureFixture[str], which: str, when: str
) -> None:
    line = WRITING[which]
    if when == "replacing":
        assert toolkit(*line[1:])[0] == 0
        line = (*line, "--overwrite")
    check_swept(place / "made", line, when, capsys)


@pytest.mark.parametrize("which", ["analyze", "new"])
def test_what_any_killed_command_left_is_swept_by_the_next_one(
    place: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    check_swept(place / "made", WRITING[which], "flushing", capsys)


def check_swept(made: Path, line: tuple[str, ...], when: str, capsys: pytest.CaptureFixture[str]) -> None:
    made.mkdir(exist_ok=True)
    killed = subprocess.run([sys.executable, "-c", KILLED, when, *line], capture_output=True, text=True)
    assert killed.returncode == -9 and any(path.name.startswith(".") for path in made.iterdir()), killed.stderr
    with pytest.raises(SystemExit) as done:
        main(list(line))
    assert not done.value.code, capsys.readouterr().err
    names = [path.name for path in made.iterdir()]
    assert len(names) == 1 and not names[0].startswith("."), names


def test_the_tokenizer_that_a_killed_command_was_replacing_is_put_back(toolkit: Toolkit, place: Path) -> None:
    line = WRITING["extend"]
    assert toolkit(*line[1:])[0] == 0
    subprocess.run([sys.executable, "-c", KILLED, "replacing", *line, "--overwrite"], capture_output=True)
    assert not (place / "made/mine").exists()
    code, _, errors = toolkit(*line[1:])
    assert code == 2 and "made/mine: it is not empty" in errors
    assert [path.name for path in (place / "made").iterdir()] == ["mine"]


@pytest.mark.parametrize("line", ["extend base texts --tokens 5 --out new/x", "analyze base texts --out curve.svg"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, _, errors = toolkit(*line.split())
    assert code == 2 and "can't be written: Permission denied" in errors and "..." not in errors


def test_what_a_library_in_rust_panics_at_is_told_in_words(toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*arguments: object, **options: object) -> None:
        raise PanicException("bad split")

    monkeypatch.setattr("graftkit.corpus.texts.text_files", panic)
    code, _, errors = toolkit("compare", "base", "--on", "texts")
    assert code == 1 and "PanicException: bad split" in errors and "Traceback" not in errors


@pytest.mark.fresh_children
def test_torch_is_loaded_for_none_of_it(place: Path) -> None:
    driver = (
        "import sys\nfrom graftkit.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    line = ["tokenizer", "analyze", "base", "texts", "--tokens", "5"]
    done = subprocess.run([sys.executable, "-c", driver, *line], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr
