"""What data holds is shown by terminals and pages, and never obeyed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import graftkit
import pytest
import yaml
from graftkit.cli.main import main
from graftkit.cli.progress import show_progress
from graftkit.cli.tables import show_table
from graftkit.cli.terminal import Styled, console, guarded_streams, json_line, say, say_answer
from graftkit.flow.events import Notice, StageFinished, StageStarted
from graftkit.report.vocabulary_figures import write_picture
from graftkit.visible import visible

EVIL = "\x1b]52;c;YWFh\x07\x1b]0;title\x07\x1b[48;5;77m\x9b2J\r\u202egnp\u200b\ufeff\x00\x7f"
"""Clipboard, title, colour, C1's erasing, a return, an override, no width, NUL and delete."""

SHOWN = r"\x1b]52;c;YWFh\x07\x1b]0;title\x07\x1b[48;5;77m\x9b2J\x0dU+202EgnpU+200BU+FEFF\x00\x7f"
NAME = EVIL.replace("\x00", "")
"""As far as a file may be called."""
SHOWN_NAME = visible(NAME)

OWN = re.compile(r"\x1b\[(?:\?25[lh]|[0-9;]*m|[12]?[AK])")
"""Colours and the movements of rich's bars."""


class Terminal(io.StringIO):
    encoding = "utf-8"
    patch: pytest.MonkeyPatch

    def open(self) -> None:
        self.patch.setattr(sys, "stdout", self)
        self.patch.setattr(sys, "stderr", self)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("none")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Both standard streams, as one terminal, once it is opened: pytest puts its own there when a test begins."""
    screen = Terminal()
    screen.patch = monkeypatch
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "4000")
    return screen


def check(screen: Terminal, shown: str) -> str:
    """Makes sure that the data arrived, and that nothing of it is obeyed."""
    text = screen.getvalue()
    assert shown in text, text[-3000:]
    left = OWN.sub("", text).replace("\r\n", "\n").replace("\r", "")  # bars are drawn again from a line's beginning
    assert visible(left) == left and "\x1b[48;5;77m" not in text
    return text


def toolkit(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_every_character_that_is_obeyed_or_not_drawn_is_written_out() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("tab\t line\n Grüße 你好 🙂\ufe0f") == "tab\t line\n Grüße 你好 🙂\ufe0f"
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xE0041):
        assert visible(chr(code)).isascii() and visible(chr(code)).isprintable()


def rows_with(evil: str, folder: Path) -> Path:
    path = folder / "records.jsonl"
    records = [{"prompt": f"say {n} {evil}", "completion": f" {n}{evil}"} for n in range(12)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def written(recipe: dict[str, Any], folder: Path) -> str:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def test_preview_shows_tokens_that_a_terminal_would_obey(tiny_model: Path, tmp_path: Path, terminal: Terminal) -> None:
    terminal.open()
    recipe = {"model": str(tiny_model), "data": {"train": str(rows_with(EVIL, tmp_path))}}
    assert toolkit("preview", written(recipe, tmp_path), "--records", "2") == 0
    text = check(terminal, "\\x1b")
    assert "\\x07" in text and "\x1b[32m[" in text, "the tokens that are learnt are green"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("run", f"no{NAME}.yaml"), SHOWN_NAME),
        (("verify", f"no{NAME}"), SHOWN_NAME),
        (("generate", f"./no{NAME}"), r"\x1b]52;c;YWFh\x07"),
        (("plan", "job.yaml", "--set", f"training.{NAME}=1"), "error"),
        (("plan", "job.yaml", "--set", f"model=./{NAME}"), "error"),
        (("plan", "job.yaml", "--set", f"adapter={NAME}"), "error"),
        (("plan", "evil.yaml"), r"\x1b]52;c;YWFh\x07"),
        (("tokenizer", "analyze", f"no{NAME}", "job.yaml"), "error"),
        ((f"no{NAME}",), r"\x1b]52;c;YWFh\x07"),
        (("run", f"--no{NAME}"), r"\x1b]52;c;YWFh\x07"),
        (("plugin", "check", NAME), r"\x1b]52;c;YWFh\x07"),
    ],
)
def test_errors_show_names_and_values(
    tiny_model: Path,
    tmp_path: Path,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    shown: str,
) -> None:
    terminal.open()
    monkeypatch.chdir(tmp_path)
    written({"model": str(tiny_model), "data": {"train": str(rows_with("", tmp_path))}}, tmp_path)
    (tmp_path / "evil.yaml").write_text(f"model: {json.dumps(f'./no{NAME}')}\ndata: {{train: records.jsonl}}\n")
    assert toolkit(*arguments) != 0
    check(terminal, shown)


def test_a_name_of_two_lines_does_not_look_like_two_errors(terminal: Terminal) -> None:
    terminal.open()
    assert toolkit("verify", "no\nerror: all is well") == 2
    assert "\nerror: all is well" not in terminal.getvalue()


def test_a_run_shows_its_rows_and_names(tiny_model: Path, tmp_path: Path, terminal: Terminal) -> None:
    terminal.open()
    (tmp_path / NAME).mkdir()
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(rows_with(EVIL, tmp_path)), "holdout": 0.2},
        "training": {"steps": 2, "tokens_per_step": 256, "device": "cpu"},
    }
    out = tmp_path / NAME / "run"
    assert toolkit("run", written(recipe, tmp_path), "--out", str(out)) == 0, terminal.getvalue()
    text = check(terminal, SHOWN_NAME)
    assert SHOWN_NAME in text.partition("Next:")[2]


def test_progress_takes_names_for_no_markup(terminal: Terminal) -> None:
    terminal.open()
    with guarded_streams(), show_progress() as on_event:
        on_event(StageStarted(f"export [link=https://a.test]x[/link] [/no] {EVIL}"))
        on_event(Notice("export", f"[blink]see[/blink] {EVIL}"))
        logging.StreamHandler().emit(logging.makeLogRecord({"msg": f"a library says {EVIL}"}))
        print(f"printed \x1b]8;;https://a.test\x07{EVIL}")
        on_event(StageFinished("export", 1.0, {}))
    text = check(terminal, "[link=https://a.test]x[/link] [/no]")
    assert "[blink]see[/blink]" in text and "\x1b]8;" not in text and "a library says" in text


def test_tables_and_a_models_answers(terminal: Terminal) -> None:
    terminal.open()
    with guarded_streams():
        show_table(["name", "value"], [[f"[red]{EVIL}", "1"]])
        say_answer(f"answer {EVIL}\n")
        console().print(f"[bold]{EVIL}")
    check(terminal, f"answer {SHOWN}")


def test_no_line_of_a_log_or_a_warning_looks_like_one_of_ours(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("alone"), "parent", None)
    terminal.open()
    with guarded_streams():
        logger, handler = logging.getLogger("transformers"), logging.StreamHandler()
        logger.addHandler(handler)
        try:
            logger.warning("of a model: %s", "\nerror: mine")
        finally:
            logger.removeHandler(handler)
        logging.getLogger("alone").warning("error: mine\nexport  mine")
        told = warnings.WarningMessage("error: mine\nexport  mine", UserWarning, "mine.py", 1)
        sys.stderr.write(warnings._formatwarnmsg(told))  # type: ignore[attr-defined] # pytest keeps what is shown
    lines = terminal.getvalue().splitlines()
    assert "alone: error: mine" in lines and "UserWarning: error: mine" in lines and lines.count("  export  mine") == 2
    assert not [line for line in lines if line.startswith(("error", "export"))]


def test_a_line_of_a_progress_bar_is_drawn_again_but_no_line_of_data(terminal: Terminal) -> None:
    terminal.open()
    with guarded_streams():
        sys.stderr.write("\r 50%|#####     | \x1b[1Aevil")
        sys.stderr.write("\r 100%")
        sys.stderr.write("\rover it\n")
        sys.stdout.write("\rover it")
    assert terminal.getvalue() == "\r 50%|#####     | \\x1b[1Aevil\r 100%\\x0dover it\n\\x0dover it"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("NO_COLOR", "1", "\x1b[1mhead\x1b[0m[learnt]\n"),
        ("TERM", "dumb", "head[learnt]\n"),
        ("NO_COLOR", "", "\x1b[1mhead\x1b[0m\x1b[32m[learnt]\x1b[0m\n"),
    ],
)
def test_a_terminal_without_colours_is_given_none(terminal: Terminal, name: str, value: str, shown: str) -> None:
    terminal.patch.setenv(name, value)
    terminal.open()
    say([Styled("head", "bold"), Styled("[learnt]", "green")])
    assert terminal.getvalue() == shown


def test_json_means_the_data_exactly() -> None:
    line = json_line({"a": EVIL, "b": "Grüße \ud800"})
    assert json.loads(line) == {"a": EVIL, "b": "Grüße \ud800"} and visible(line) == line and "Grüße" in line


def test_output_that_the_locale_lacks_is_written_all_the_same(tmp_path: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""}
    command = [sys.executable, "-m", "graftkit", "verify", f"Grüße{NAME}"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 2 and rb"Gr\xfc\xdfe\x1b]52" in done.stderr, done.stderr


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.styles: list[str] = []
        self.policy: dict[str, list[str]] = {}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            assert "style" not in self.tags and "svg" not in self.tags, "the policy comes first"
            parts = [part.split() for part in str(given["content"]).split(";")]
            self.policy = {name: values for name, *values in parts}

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.lasttag == "style" and self.tags[-1] == "style":
            self.styles += [data] if data.strip() else []


def check_page(text: str) -> Page:
    page = Page(text)
    assert page.policy["default-src"] == ["'none'"] and page.policy.keys() == {
        "default-src",
        "style-src",
        "base-uri",
        "form-action",
    }
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" for style in page.styles}
    assert hashes and hashes == set(page.policy["style-src"])
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "img", "a"} & set(page.tags)
    for name, value in page.attributes:
        assert name != "style" and not name.startswith("on"), (name, value)
        assert name not in ("src", "href", "xlink:href") or str(value).startswith("#")
    assert visible(page.text) == page.text and visible(text) == text
    return page


MARKUP = "</style></code><script>alert(1)</script><img src=x onerror=alert(1)>" + EVIL


def test_the_report_of_hostile_rows_loads_and_runs_nothing(tiny_model: Path, tmp_path: Path) -> None:
    result = graftkit.run(
        {
            "model": str(tiny_model),
            "data": {"train": str(rows_with(MARKUP, tmp_path)), "holdout": 0.2},
            "training": {"steps": 2, "tokens_per_step": 256, "device": "cpu"},
            "evaluation": {"answers": 2, "max_new_tokens": 4},
        },
        out=tmp_path / f"run {NAME}",
    )
    page = check_page((result.folder / "report.html").read_text())
    assert "<script>alert(1)</script>" in page.text and SHOWN in page.text and "svg" in page.tags


def test_the_page_of_a_comparison_does_neither(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2], [2, 1])
    write_picture(tmp_path / "page.html", figure, [MARKUP, "b"], [[MARKUP, "$x"]], MARKUP)
    page = check_page((tmp_path / "page.html").read_text())
    assert SHOWN in page.text and "path" in page.tags
