"""report.html as a reader's browser shows it, and what it says of each kind of run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import graftkit
import pytest
from chromium import CHROMIUM, Tab, browser
from graftkit.errors import FolderError
from graftkit.flow.folders.own_files import others_files
from graftkit.flow.reporting.read_run import read_run
from graftkit.report.html import render_report
from graftkit.report.run_data import RunData, ShownAnswer, WorstRecord
from graftkit.report.run_manifest import (
    ExportFacts,
    MemoryFacts,
    MemoryForecast,
    MemoryMeasured,
    RunManifest,
    StageMemory,
)
from graftkit.store.token_store import TokenStore

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

LONG_NAME = "a_very_long_name_of_a_file_or_of_a_run_that_has_no_place_to_be_broken_at_" * 2


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    folder = tmp_path_factory.mktemp("report")
    records = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(40)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(folder / "records.jsonl"), "holdout": 0.3, "max_length": 64},
        "training": {"steps": 6, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "evaluation": {"every": 2, "answers": 4, "max_new_tokens": 4},
    }
    return graftkit.run(recipe, out=folder / "run")


def of_many_steps(folder: Path) -> RunData:
    """The run as one of 10,000 steps whose names and texts are as bad as they may be."""
    run = read_run(folder)
    steps = [
        {
            "step": n,
            "loss": 4 / n + 0.1 * math.sin(n),
            "learning_rate": 1e-3 * n / 10_000,
            "tokens": 100,
            "seconds": 1.0,
        }
        for n in range(1, 10_001)
    ]
    evil = "</pre><script>alert(1)</script>\x1b[2J\u202e" + LONG_NAME
    proof = {
        "status": "proved",
        "max_abs_diff": 1e-5,
        "mean_abs_diff": 1e-6,
        "top1_agreement": 1.0,
        "tolerance": 1e-4,
        "loaded_with": {evil: "1"},
    }
    manifest = run.manifest.with_facts(exports={evil: ExportFacts(folder=f"/{evil}", proof=proof)}, notices=[evil])
    return replace(
        run,
        manifest=manifest,
        steps=steps,
        holdout={n: 3 / n for n in range(1, 10_000, 10)},
        answers=[ShownAnswer(evil, evil * 40, evil, evil, evil, False, True)] * 64,
        worst=[WorstRecord(evil, 9.5, 3, [evil * 20, evil])] * 10,
    )


def test_a_report_of_many_steps_is_small_and_quick(finished: graftkit.RunResult, tmp_path: Path) -> None:
    run = of_many_steps(finished.folder)
    start = time.perf_counter()
    page = render_report(run)
    assert time.perf_counter() - start < 5 and len(page.encode()) < 2_000_000
    assert "<script" not in page and "\x1b" not in page and "\u202e" not in page


@needs_chromium
@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_loads_nothing_complains_of_nothing_and_fits(
    finished: graftkit.RunResult, tmp_path: Path, tab: Tab, width: int, dark: bool
) -> None:
    page = tmp_path / "page.html"
    page.write_text(render_report(of_many_steps(finished.folder)))
    shown = tab.show(page, width, dark=dark)
    assert shown.requests == [] and shown.complaints == []
    assert shown.value("document.documentElement.scrollWidth") <= width
    assert shown.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)"
    )
    drawn = shown.value(
        "[...document.querySelectorAll('svg')].filter(e => e.checkVisibility()).map(e => e.classList[0])"
    )
    assert drawn and set(drawn) == {"narrow" if width < 600 else "wide"}
    texts = "[...document.querySelectorAll('svg text')].filter(e => e.checkVisibility())"
    size = shown.value(f"Math.min(...{texts}.map(e => e.getBoundingClientRect().height))")
    assert size >= 11, "the numbers of a chart can be read"
    assert shown.value("document.querySelectorAll('script, img, iframe, object').length") == 0


@needs_chromium
def test_no_name_is_broken_letter_by_letter(finished: graftkit.RunResult, tab: Tab) -> None:
    """Each heading cell and each first cell of a table is no higher than two lines."""
    shown = tab.show(finished.folder / "report.html", 390)
    heights = shown.value(
        "[...document.querySelectorAll('th, td:first-child')].map(e => e.getBoundingClientRect().height)"
    )
    assert max(heights) < 80
    assert shown.value("document.documentElement.scrollWidth") <= 390


@needs_chromium
def test_what_opens_and_scrolls_is_reached_by_the_keyboard(finished: graftkit.RunResult, tab: Tab) -> None:
    shown = tab.show(finished.folder / "report.html")
    assert shown.value("[...document.querySelectorAll('summary')].every(e => e.tabIndex === 0)")
    assert shown.value("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.ariaLabel)")
    assert shown.value("[...document.querySelectorAll('svg')].every(e => e.role === 'img' && e.ariaLabel)")
    tab.send("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert shown.value("document.activeElement.tagName") in ("DIV", "SUMMARY")


def test_a_report_says_what_was_asked_expected_and_answered(finished: graftkit.RunResult) -> None:
    page = (finished.folder / "report.html").read_text()
    before, after = (
        json.loads((finished.folder / f"answers-{when}.json").read_text())["answers"] for when in ("before", "after")
    )
    assert [a["where"] for a in before] == [a["where"] for a in after] and len(after) == 4
    for answer in after:
        assert answer["question"].startswith("say ") and f"<pre>{answer['question']}</pre>" in page
        assert f"{answer['where']}</h3>" in page and f"<pre>{answer['expected']}</pre>" in page
    for said in ("Next", "Versions and hashes", "toolkit generate", *finished.manifest["model"]["files"].values()):
        assert said in page


def test_the_worst_records_are_those_with_the_highest_loss(finished: graftkit.RunResult) -> None:
    """The mean of all losses, each with its tokens, is the holdout loss; each record stands where it is said to."""
    facts = json.loads((finished.folder / "holdout-worst.json").read_text())
    worst = facts["worst"]
    losses = [record["loss"] for record in worst]
    assert facts["examples"] == 12 and len(worst) == 10 and losses == sorted(losses, reverse=True)
    assert losses[0] > finished.metrics["after"]["holdout_loss"] > 0
    path, _, line = worst[0]["where"].rpartition(":")
    record = json.loads(Path(path).read_text().splitlines()[int(line) - 1])
    assert record["messages"][0]["content"] in worst[0]["texts"][0]
    page = (finished.folder / "report.html").read_text()
    assert f"loss {losses[0]:.4f} over" in page
    store = TokenStore.load(finished.folder / "tokens" / "holdout.safetensors")
    assert f"{len(store.ids):,}" in page


def test_a_run_of_pairs_and_one_of_labels_have_a_report(tiny_model: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": f"say {n}", "chosen": f"{n}!", "rejected": f"not {n}"} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    labels = [{"text": f"text {n}", "label": ("odd", "even")[n % 2]} for n in range(20)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    for name, objective in (("pairs", "dpo"), ("labels", "classification")):
        recipe: dict[str, Any] = {
            "model": str(tiny_model),
            "data": {"train": str(tmp_path / f"{name}.jsonl"), "holdout": 0.2, "max_length": 64},
            "training": {"steps": 2, "tokens_per_step": 256, "device": "cpu"},
            "objective": objective,
        }
        result = graftkit.run(recipe, out=tmp_path / name)
        page = (result.folder / "report.html").read_text()
        worst = json.loads((result.folder / "holdout-worst.json").read_text())["worst"]
        assert len(worst) == 4 and all(f"{record['loss']:.4f}" in page for record in worst)
        assert f"loss, {objective}" in page and "<h2>Answers</h2>" not in page
        assert ("sequence 2" in page) == (objective == "dpo")
        mean = sum(record["loss"] for record in worst) / 4
        assert mean == pytest.approx(result.metrics["after"]["holdout_loss"], rel=1e-5)


def test_a_manifest_of_an_earlier_form_still_makes_a_page(finished: graftkit.RunResult) -> None:
    """A run whose folder has lost all but its manifest."""
    run = RunData(finished.folder, RunManifest.from_json(finished.manifest), damage=["metrics.jsonl is damaged"])
    page = render_report(run)
    assert "metrics.jsonl is damaged" in page and "No line of metrics.jsonl can be read." in page


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (lambda facts: facts["recipe"].pop("model"), "recipe.model.path"),
        (lambda facts: facts["providers"]["adapter"].update(name=3), "providers.adapter.name"),
        (lambda facts: [stage.update(step_seconds="1") for stage in facts["stages"]], "step_seconds"),
    ],
)
def test_a_manifest_that_was_edited_is_named_by_what_it_does_not_say(
    finished: graftkit.RunResult, edit: Callable[[Any], object], key: str
) -> None:
    facts = json.loads(json.dumps(finished.manifest))
    edit(facts)
    with pytest.raises(FolderError, match=f"its manifest is damaged: it does not say '{key}'"):
        render_report(RunData(finished.folder, RunManifest.from_json(facts)))


def test_memory_is_shown_beside_its_forecast_where_there_is_one(finished: graftkit.RunResult) -> None:
    run = read_run(finished.folder)
    assert "measured, MB" in render_report(run) and "forecast, MB" not in render_report(run)
    forecast = MemoryForecast(device="cpu", stages=[StageMemory(stage="training", host=123_000_000)])
    measured = MemoryMeasured(host={"training": 120_000_000, "report": 90_000_000})
    manifest = run.manifest.with_facts(memory=MemoryFacts(forecast=forecast, measured=measured))
    page = render_report(replace(run, manifest=manifest))
    assert "forecast, MB of the machine" in page
    assert '<td>training</td><td class="n">123</td><td class="n">120</td>' in page
    assert '<td>report</td><td class="n">-</td><td class="n">90</td>' in page


def test_every_file_of_a_run_is_known_as_its_own_without_its_list(finished: graftkit.RunResult) -> None:
    """A run that is stopped right after it has written one goes on with it, and lists it in the end."""
    manifest = RunManifest.from_json(finished.manifest).with_facts(artifacts={}, written=[])
    assert (finished.folder / "holdout-worst.json").exists() and others_files(finished.folder, manifest) == []
