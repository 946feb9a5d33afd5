"""`toolkit compare` and `graftkit.compare`: several runs side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import graftkit
import pytest
from chromium import CHROMIUM, browser
from click.testing import CliRunner, Result
from graftkit.cli.compare import command
from graftkit.errors import FolderError, RequestError
from graftkit.flow.reporting.read_run import read_run
from graftkit.report.comparison import compared
from graftkit.report.comparison_page import render_comparison


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compare")

    def records(name: str, word: str) -> str:
        said = [{"prompt": f"{word} {n}", "completion": f" {n}!"} for n in range(24)]
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in said))
        return str(folder / name)

    def run(name: str, train: str, rank: int) -> Path:
        recipe: dict[str, Any] = {
            "model": str(tiny_model),
            "data": {"train": train, "holdout": 0.2, "max_length": 64},
            "adapter": {"use": "lora", "rank": rank},
            "training": {"steps": 4, "tokens_per_step": 128, "learning_rate": 1e-2, "device": "cpu"},
            "evaluation": {"every": 2, "answers": 2, "max_new_tokens": 3},
        }
        return graftkit.run(recipe, out=folder / name).folder

    same, other = records("records.jsonl", "say"), records("other.jsonl", "tell")
    return {"four": run("four", same, 4), "eight": run("eight", same, 8), "elsewhere": run("elsewhere", other, 4)}


def asked(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_only_what_differs_is_listed(runs: dict[str, Path]) -> None:
    found = graftkit.compare([runs["four"], runs["eight"]])
    assert {each.key: list(each.values) for each in found.differences} == {"adapter.rank": [4, 8]}
    assert found.same_holdout and found.same_loss and found.notices == []
    four, eight = found.runs
    assert (four.name, eight.name, four.status) == ("four", "eight", "finished")
    manifest = json.loads((runs["four"] / "manifest.json").read_text())
    assert four.holdout_after == manifest["metrics"]["after"]["holdout_loss"]
    assert four.trainable == manifest["parameters"]["trainable"] and 2 * four.trainable == eight.trainable
    assert four.steps == 4 and four.tokens == four.training.points[-1][0] and len(four.holdout.points) == 2
    assert len(found.answers) == 2 and all(len(answer.answers) == 2 for answer in found.answers)
    assert found.answers[0].question.startswith("say ") and ".jsonl:" in found.answers[0].where


def test_what_the_objective_tells_is_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "judged"
    shutil.copytree(runs["four"], folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for when, accuracy in (("before", 0.25), ("after", 0.75)):
        manifest["metrics"][when]["metrics"] = {"accuracy": accuracy, "margin": -accuracy}
        manifest["metrics"][when]["scores"] = {"accuracy": 0.5}  # of answers, by a metric that is called so, too
    (folder / "manifest.json").write_text(json.dumps(manifest))
    plain, judged = graftkit.compare([runs["four"], folder]).runs
    assert plain.metrics_after == {} and judged.metrics_after == {"accuracy": 0.75, "margin": -0.75}
    rows = {" ".join(row[:-2]): row[-2:] for row in map(str.split, asked(runs["four"], folder).stdout.splitlines())}
    assert rows["accuracy before"] == ["-", "0.2500"] and rows["accuracy after"] == ["-", "0.7500"]
    assert rows["accuracy after (answers)"] == ["-", "50.0%"]
    assert rows["margin after"] == ["-", "-0.7500"]


def test_losses_of_sampled_answers_are_of_their_rewards(runs: dict[str, Path], tmp_path: Path) -> None:
    """However many a step samples, and however it compares them."""

    def sampled(name: str, metrics: Sequence[str] = ("exact-match",), **fields: Any) -> Path:
        manifest = json.loads((shutil.copytree(runs["four"], tmp_path / name) / "manifest.json").read_text())
        manifest["recipe"]["objective"] = {"use": "grpo", "group_size": 8, "max_new_tokens": 9, "rewards": {}} | fields
        manifest["recipe"]["evaluation"]["metrics"] = [{"use": metric, "name": None} for metric in metrics]
        manifest["providers"]["objective"]["name"] = "grpo"
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path / name

    plain = sampled("plain")
    assert graftkit.compare([plain, sampled("more", group_size=16, loss="grpo")]).same_loss
    for key, other in (
        ("evaluation.metrics", sampled("json", metrics=["json-equal"])),
        ("objective.max_new_tokens", sampled("long", max_new_tokens=10)),
        ("objective.temperature", sampled("hot", temperature=1.5)),
    ):
        found = graftkit.compare([plain, other])
        assert not found.same_loss and f"one objective with other fields ({key})" in found.notices[0]


def test_losses_of_one_objective_with_other_fields_are_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    def weighed(name: str, **fields: Any) -> Path:
        manifest = json.loads((shutil.copytree(runs["four"], tmp_path / name) / "manifest.json").read_text())
        manifest["recipe"]["objective"] = {"use": "classification", "labels": [], "class_weights": None} | fields
        manifest["providers"]["objective"]["name"] = "classification"
        manifest["head"] = {"kind": "sequence", "labels": fields.get("labels", ["bad", "good"]), "pad": None}
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path / name

    plain, ordered = weighed("plain"), weighed("ordered", labels=["good", "bad"])
    assert graftkit.compare([plain, ordered]).same_loss and graftkit.compare([plain, ordered]).notices == []
    found = graftkit.compare([plain, weighed("heavy", class_weights={"good": 5.0})])
    told = "one objective with other fields (objective.class_weights)"
    assert found.same_holdout and not found.same_loss
    assert found.notices == [f"{told}: their losses are of different things"]


def test_losses_over_other_records_are_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    found = graftkit.compare([runs["four"], runs["elsewhere"]])
    assert not found.same_holdout and not found.same_loss and found.answers == []
    [notice] = found.notices
    assert notice == "the holdout records of elsewhere are not those of four: their losses can't be compared"
    shown = asked(runs["four"], runs["elsewhere"], "--html", tmp_path / "page.html")
    assert shown.exit_code == 0 and f"note: {notice}" in shown.output
    page = (tmp_path / "page.html").read_text()
    assert "can&#39;t be compared" in page and "Holdout loss while training" not in page


def test_the_command_shows_tables_curves_and_answers(runs: dict[str, Path], tmp_path: Path) -> None:
    done = asked(runs["four"], runs["eight"], "--html", tmp_path / "page.html", "--answers", "1")
    assert done.exit_code == 0, done.output
    words = [line.split() for line in done.output.splitlines()]
    assert ["adapter.rank", "4", "8"] in words and ["status", "finished", "finished"] in words
    assert any(line[:2] == ["training", "loss"] and "█" in line[2] for line in words)
    assert done.output.count("  expected  ") == 1 and f"page  {tmp_path / 'page.html'}" in done.output
    page = (tmp_path / "page.html").read_text()
    assert page.count("<polyline") == 8, "two runs, two curves, each for wide and for narrow screens"
    assert "default-src 'none'" in page and ">eight</text>" in page
    found = json.loads(asked(runs["four"], runs["eight"], "--json").output)
    assert found == graftkit.compare([runs["four"], runs["eight"]]).to_json()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_page_of_many_runs_of_long_names_fits_a_small_screen(runs: dict[str, Path], tmp_path: Path) -> None:
    run = read_run(runs["four"])
    many = [replace(run, folder=tmp_path / f"{'a_long_name_without_a_place_to_break_' * 3}<b>{n}") for n in range(8)]
    page = tmp_path / "page.html"
    page.write_text(render_comparison(compared(many)))
    with browser(tmp_path / "profile") as tab:
        for width in (390, 1000):
            shown = tab.show(page, width, dark=width == 390)
            assert shown.requests == [] and shown.complaints == []
            assert shown.value("document.documentElement.scrollWidth") <= width
            assert shown.value("document.querySelectorAll('b, script').length") == 0


def test_unfinished_and_damaged_runs_are_told_in_words(runs: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(runs["eight"], broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    stopped = {"stage": "training", "step": 3, "steps": 4}
    manifest |= {"status": "interrupted", "progress": stopped, "error": {"kind": "Cancelled", "message": "stopped"}}
    del manifest["metrics"]["after"], manifest["parameters"]
    (broken / "manifest.json").write_text(json.dumps(manifest))
    (broken / "answers-after.json").write_text('{"answers": [{"answer"')
    (broken / "holdout-worst.json").write_text("[]")
    (broken / "tokens" / "train.safetensors").write_bytes(b"no")
    lines = (broken / "metrics.jsonl").read_text().splitlines(keepends=True)
    odd = [json.dumps({**json.loads(lines[1]), "loss": loss}) + "\n" for loss in (10**400, float("nan"))]
    (broken / "metrics.jsonl").write_text("".join(["{damaged\n", odd[0], *lines[2:-2], odd[1]]))
    found = graftkit.compare([runs["four"], broken])
    told = "\n".join(found.notices)
    assert "broken has been stopped in the stage training, after step 3 of 4: stopped" in told
    for name in ("answers-after.json is damaged", "holdout-worst.json is damaged", "tokens/train.safetensors is"):
        assert f"broken: {name}" in told
    assert "metrics.jsonl is damaged: it has no line that can be read of step 1, 2" in told
    assert found.runs[1].holdout_after is None and found.runs[1].trainable is None
    assert asked(runs["four"], broken).exit_code == 0


def test_what_is_no_run_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="two runs or more"):
        graftkit.compare([runs["four"]])
    with pytest.raises(FolderError, match="there is no run in it"):
        graftkit.compare([runs["four"], tmp_path])
    broken = tmp_path / "broken"
    shutil.copytree(runs["four"], broken)
    (broken / "manifest.json").write_text('{"graftkit": "1"')
    with pytest.raises(FolderError, match=r"manifest\.json is damaged"):
        graftkit.compare([runs["four"], broken])
    for page in (tmp_path / "page.pdf", tmp_path / "none" / "page.html", runs["four"] / "report.html"):
        with pytest.raises(RequestError):
            CliRunner().invoke(
                command, [str(runs["four"]), str(runs["eight"]), "--html", str(page)], catch_exceptions=False
            )


def test_two_runs_of_one_name_are_told_apart(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["four"], tmp_path / "four")
    found = graftkit.compare([runs["four"], tmp_path / "four"])
    assert [run.name for run in found.runs] == [str(runs["four"]), str(tmp_path / "four")]
    assert found.differences == []
    assert "The recipes, records and versions are the same." in asked(runs["four"], tmp_path / "four").output
