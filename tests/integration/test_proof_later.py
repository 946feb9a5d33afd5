"""`proof: later`: exports that say they are unproved until they are verified, and then what a run would have said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit import ReportSection, ReportText
from graftkit.cli.main import cli
from graftkit.errors import ExportError, FolderError, PluginCallError, RecipeError
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.folders.export_manifest import ExportManifest, check_all_listed
from graftkit.flow.folders.folder import locked_folder
from graftkit.flow.folders.listed_files import check_listed, listed_by_the_run
from graftkit.flow.reporting.report_sections import SECTIONS, keep_sections
from graftkit.flow.verify import check_files
from graftkit.report.run_manifest import RunManifest
from graftkit.store.file_hashes import sha256_of
from integration.conftest import RecipeMaker

NAMES = ["peft", "merged"]


@pytest.fixture(scope="module")
def recipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    records = tmp_path_factory.mktemp("data") / "records.jsonl"
    records.write_text("".join(f'{{"prompt": "say {n}", "completion": "{n}!"}}\n' for n in range(40)))
    return {
        "model": str(tiny_model),
        "data": {"train": str(records), "holdout": 0.1, "max_length": 64},
        "adapter": {"use": "lora", "rank": 4},
        "training": {"steps": 2, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "export": NAMES,
    }


@pytest.fixture(scope="module")
def at_once(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that proved its exports."""
    return graftkit.run(recipe, out=tmp_path_factory.mktemp("at_once") / "run").folder


@pytest.fixture(scope="module")
def unproved(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graftkit.run({**recipe, "proof": "later"}, out=tmp_path_factory.mktemp("later") / "run").folder


@pytest.fixture
def later(unproved: Path, tmp_path: Path) -> Path:
    """A copy of a run that put its proofs off: another machine's, as it were."""
    return Path(shutil.copytree(unproved, tmp_path / "run"))


@pytest.fixture
def proving(at_once: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has each proof give what the run's own gave, or fail, without a process that computes it."""

    def patch(meanwhile: Callable[[], object] = lambda: None, error: ExportError | None = None) -> None:
        def prove(folder: Path, *_: object, **__: object) -> dict[str, Any]:
            meanwhile()
            if error:
                raise error
            return dict(manifest_of(at_once).exports["peft" if "peft" in folder.name else "merged"].proof)

        monkeypatch.setattr("graftkit.flow.exports.proof.prove", prove)

    return patch


def manifest_of(run: Path) -> RunManifest:
    found = RunManifest.read(run)
    assert found is not None
    return found


def own(export: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((export / "graftkit.json").read_bytes())
    return found


def holds(run: Path) -> bool:
    """Whether each file is one of those that the run's manifest lists, and none is being replaced any more."""
    manifest = manifest_of(run)
    assert not manifest.replacing and not any("replacing" in own(run / "exports" / name) for name in NAMES)
    return all(sha256_of(run / name) == facts["sha256"] for name, facts in manifest.artifacts.items())


def command(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_exports_say_that_they_are_unproved(later: Path) -> None:
    manifest = manifest_of(later)
    assert manifest.status == "finished" and manifest.put_off == NAMES and holds(later)
    for name in NAMES:
        said = "not proved: its proof was put off (proof: later)"
        assert own(later / "exports" / name)["proof"] == manifest.exports[name].proof
        assert f"It was {said}." in text_of(later / "exports" / name / "README.md")
        assert text_of(later / "report.html").count(said) == 2
        told = " ".join(command("generate", later / "exports" / name, "Hello", "--max-new-tokens", 1).stderr.split())
        assert "its proof was put off (proof: later). `toolkit verify" in told
    assert not any(stage.name.startswith("proof of") for stage in manifest.stages)
    assert f"toolkit verify {manifest.exports['peft'].folder.removesuffix('/exports/peft')}<" in text_of(
        later / "report.html"
    )


def test_a_proof_that_comes_later_says_what_one_at_once_says(at_once: Path, later: Path) -> None:
    keep_sections(later / SECTIONS, [("plugin 'p'", ReportSection("Energy", [ReportText("1.2 kWh")]))])
    done = command("verify", later, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["exports"]
    assert [each["recorded"] for each in found.values()] == [True, True] and holds(later)
    was, now = manifest_of(at_once), manifest_of(later)
    for name in NAMES:
        proof = was.exports[name].proof
        assert now.exports[name].proof == own(later / "exports" / name)["proof"] == proof
        assert found[name].items() >= proof.items()
        cards = [text_of(run / "exports" / name / "README.md") for run in (at_once, later)]
        assert cards[0].partition("## How to load")[0].rpartition("## How it")[2] in cards[1]
        assert section(cards[0]) == section(cards[1])
    assert [stage.name for stage in now.stages] == [stage.name for stage in was.stages]
    assert {*was.memory.measured.host} == {*now.memory.measured.host}  # type: ignore[union-attr]
    assert (now.notices, now.unproved, now.status) == (was.notices, [], "finished")
    assert (
        text_of(later / "report.html").count(">proved: logits")
        == text_of(at_once / "report.html").count(">proved: logits")
        == 2
    )
    assert "1.2 kWh" in text_of(later / "report.html"), "what a plugin has added to the report is there no more"
    before = {path: path.stat().st_mtime_ns for path in later.rglob("*") if path.is_file()}
    again = command("verify", later)
    assert again.exit_code == 0 and again.stdout.count("proved: logits") == 2 and not again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in later.rglob("*") if path.is_file()}


@pytest.mark.parametrize("above", [".", "exports"])
def test_a_proof_of_a_linked_export_is_recorded_in_its_run(
    later: Path, tmp_path: Path, proving: Callable[..., None], above: str
) -> None:
    (tmp_path / "published" / above).mkdir(parents=True)
    link = tmp_path / "published" / above / "peft of mine"
    link.symlink_to(later / "exports" / "peft")
    proving()
    assert graftkit.verify(link).recorded
    assert manifest_of(later).unproved == ["merged"] and holds(later)
    assert [path.name for path in link.parent.iterdir()] == [link.name]


def section(card: str) -> str:
    return card.partition("## How it was proved")[2].partition("\n##")[0]


def test_a_proof_that_fails_is_recorded_and_may_be_tried_again(later: Path, proving: Callable[..., None]) -> None:
    proving(error=ExportError("it computes something else than what was trained: by 0.7", where="x"))
    done = command("verify", later)
    assert isinstance(done.exception, ExportError) and done.exception.code == "export"
    assert len(done.exception.__notes__) == 1
    said = "not proved: it computes something else than what was trained: by 0.7"
    for name in NAMES:
        assert (
            manifest_of(later).exports[name].proof["status"]
            == own(later / "exports" / name)["proof"]["status"]
            == "failed"
        )
        card = text_of(later / "exports" / name / "README.md")
        assert "It was not proved: its proof failed. `graftkit.json` says why." in card
        assert "by 0.7" not in card, "a reason may name folders of whoever proved it"
    assert text_of(later / "report.html").count(said) == 2 and holds(later)
    proving()
    assert (
        graftkit.verify(later / "exports/peft").recorded and manifest_of(later).unproved == ["merged"] and holds(later)
    )


class Killed(BaseException):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize("alone", [False, True], ids=["run", "no run"])
def test_a_kill_while_a_proof_is_recorded_leaves_the_old_state_or_the_new(
    later: Path, tmp_path: Path, proving: Callable[..., None], monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """After each of the files that are written: what lies there is read without an error, and is made whole."""
    proving()
    if alone:
        (later / "manifest.json").unlink()
    whole, replace = 0, Path.replace
    for moment in range(12):
        run = Path(shutil.copytree(later, tmp_path / f"killed-{moment}"))
        left = [moment]

        def written(self: Path, target: Path, left: list[int] = left) -> Path:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return replace(self, target)

        export = run / "exports/peft"
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", written)
            try:
                graftkit.verify(export)
                whole += 1
            except Killed:
                pass
        check_files(export)
        check_all_listed(export, ExportManifest.read(export, ()))  # as `toolkit generate` does
        check_listed(export, listed_by_the_run(export))
        if not alone:
            deciding = manifest_of(run).exports["peft"].proof["status"]
            assert deciding == ("proved" if moment else "not yet")
        found = graftkit.verify(export)
        assert found.proof["status"] == own(export)["proof"]["status"] == "proved"
        assert "It was loaded again" in text_of(export / "README.md")
        if not alone:
            assert holds(run) and manifest_of(run).put_off == ["merged"]
            assert text_of(run / "report.html").count(">proved: logits") == 1
        if whole:
            break
    assert moment == (3 if alone else 6)


@pytest.mark.parametrize("moment", [1, 2])
def test_a_card_that_is_edited_after_a_kill_is_not_taken_for_the_runs(
    later: Path, proving: Callable[..., None], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """`--overwrite` would delete what is listed."""
    proving()
    left, replace = [moment], Path.replace

    def written(self: Path, target: Path) -> Path:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return replace(self, target)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Path, "replace", written)
        graftkit.verify(later / "exports/peft")
    card = later / "exports/peft/README.md"
    card.write_text(mine := text_of(card) + "Mine.\n")
    found = graftkit.verify(later / "exports/peft")
    assert "peft/README.md is not as it was written; it is for people, and no program loads it" in found.notices
    assert text_of(card) == mine and not manifest_of(later).replacing
    assert sha256_of(card) not in {manifest_of(later).artifacts["exports/peft/README.md"]["sha256"]}
    assert sha256_of(card) != own(later / "exports/peft")["files"]["README.md"]["sha256"]


def test_proofs_that_are_recorded_at_once_are_all_there(later: Path, proving: Callable[..., None]) -> None:
    together = Barrier(4)
    proving(together.wait)
    exports = [later / "exports" / name for name in NAMES for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        assert all(found.proof["status"] == "proved" for found in pool.map(graftkit.verify, exports))
    assert manifest_of(later).unproved == [] and holds(later)


def test_what_can_not_be_recorded_is_told(
    later: Path, proving: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    proving()
    export = later / "exports/peft"
    monkeypatch.setattr("graftkit.flow.exports.record_proof._SECONDS", 0.1)
    with locked_folder(later), pytest.raises(FolderError, match="a run or an export is going on in it"):
        graftkit.verify(export)
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        found = graftkit.verify(export)
    assert not found.recorded and found.notices == [
        "peft: before, its proof was put off (proof: later); that it is proved is not recorded: "
        "its folder may only be read"
    ]
    assert manifest_of(later).put_off == NAMES and holds(later)
    run = manifest_of(later)
    run.with_facts(exports={"merged": run.exports["merged"]}).write(later)
    told = "not recorded: its run's manifest has it among its exports no more"
    assert told in graftkit.verify(export).notices[0]


def test_an_exporter_that_can_not_be_made_keeps_no_other_export_from_its_proof(
    later: Path, proving: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(target: str) -> None:
        raise ImportError(f"No module named {target!r}")

    proving()
    monkeypatch.setattr("graftkit.flow.base_files.recreate.import_target", missing)
    facts = ExportManifest.read(later / "exports/peft", ()).exporter
    with pytest.raises(PluginCallError, match=r"the making of 'peft' raised ImportError: No module named .*") as caught:
        InstalledProviders(graftkit.PluginHost()).make("exporter", facts)
    assert str(caught.value).startswith("plugin '")
    assert all(found.recorded for found in graftkit.verify_run(later).values())


@pytest.mark.parametrize("name", ["report.html", "metrics.jsonl", "tokens/train.safetensors"])
@pytest.mark.parametrize("change", ["edited", "gone", "not readable"])
def test_a_report_is_not_replaced_by_one_that_says_less(
    later: Path, proving: Callable[..., None], name: str, change: str
) -> None:
    """Notes that somebody has put into it, or curves whose file is gone, are nowhere else."""
    proving()
    path = later / name
    if change == "edited":
        path.write_bytes(path.read_bytes() + b"<!-- mine -->")
    else:
        path.unlink()
    if change == "not readable":
        path.mkdir()
    before = {each: each.read_bytes() for each in (path, later / "report.html") if each.is_file()}
    found = graftkit.verify(later / "exports/peft")
    assert found.recorded and own(later / "exports/peft")["proof"]["status"] == "proved"
    state = "is not as the run wrote it" if change == "edited" else "is not there any more"
    assert f"report.html is left as it is, and does not say what the proof gave: {name} {state}" in found.notices
    assert {each: each.read_bytes() for each in before} == before and not manifest_of(later).replacing


def test_damage_that_concerns_the_report_alone_keeps_no_proof_from_being_recorded(
    later: Path, proving: Callable[..., None]
) -> None:
    proving()
    (later / SECTIONS).write_text('{"sections": 3')
    before = text_of(later / "report.html")
    found = graftkit.verify(later / "exports/peft")
    told = f"report.html is left as it is, and does not say what the proof gave: {SECTIONS}: "
    assert found.recorded and any(notice.startswith(told) for notice in found.notices)
    assert text_of(later / "report.html") == before and not manifest_of(later).replacing


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"exports": {}}, "its run's manifest has it among its exports no more"),
        ({"status": "interrupted"}, "its run has not finished; resume=True proves it"),
    ],
    ids=["not asked for any more", "interrupted"],
)
def test_why_a_proof_is_not_recorded_is_told(
    later: Path, proving: Callable[..., None], facts: dict[str, Any], why: str
) -> None:
    proving()
    manifest_of(later).with_facts(**facts).write(later)
    found = graftkit.verify(later / "exports/peft")
    assert not found.recorded and found.notices[-1].endswith(f"that it is proved is not recorded: {why}")


def test_a_run_that_put_its_proofs_off_is_complete(
    later: Path, recipe: dict[str, Any], proving: Callable[..., None]
) -> None:
    with pytest.raises(FolderError, match="nothing to resume\n.*toolkit verify .* proves its exports"):
        graftkit.run({**recipe, "proof": "later"}, out=later, resume=True)
    proving()
    found = graftkit.run(recipe, out=later, resume=True)
    assert {facts["proof"]["status"] for facts in found.manifest["exports"].values()} == {"proved"}


def test_another_export_may_be_put_off(later: Path, tmp_path: Path, proving: Callable[..., None]) -> None:
    proving()
    found = graftkit.export(later, "merged", ["name=other"])
    assert found.proof["status"] == "not yet" and manifest_of(later).put_off == [*NAMES, "other"]
    done = command("export", later / "exports/peft", "--to", "merged", "--out", tmp_path / "of", "--proof", "later")
    assert done.exit_code == 0 and "its proof was put off" in done.output
    export = tmp_path / "of/exports/merged"
    assert "It was not proved" in text_of(export / "README.md")
    assert graftkit.verify(export).recorded and own(export)["proof"]["status"] == "proved"
    assert "It was loaded again" in text_of(export / "README.md") and check_files(export) == ["graftkit.json"]


def test_what_verify_could_not_make_is_not_put_off(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(export=["graftkit_exporters.merged:MergedExporter"], proof="later")
    with pytest.raises(RecipeError, match="proof: later: .* is a class that no plugin offers"):
        graftkit.run(recipe, out=tmp_path / "run")
    with pytest.raises(FolderError, match="there is neither a run nor an export in it"):
        graftkit.verify_run(tmp_path)
