"""An export that was written and not proved: every command that is given it says so, and what goes on proves it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from graftkit import run
from graftkit.cli.main import cli
from graftkit.errors import ExportError, FolderError, ProofStoppedError
from graftkit.flow.add_export import add_export
from graftkit.flow.folders.export_manifest import ExportManifest
from integration.conftest import RecipeMaker

KILLED = ProofStoppedError("its proof was killed (SIGKILL)", where="exports/merged")
FAILED = ExportError("it computes something else than what was trained: by 0.7")
MISSING = {"status": "not possible", "reason": "xllamacpp is not installed"}


def told(export: Path) -> str:
    """Returns what `toolkit generate` says of an export beside its answer."""
    found = CliRunner().invoke(cli, ["generate", str(export), "Hello", "--max-new-tokens", "2"])
    assert found.exit_code == 0, found.output
    return " ".join(found.stderr.split())


def verified(export: Path) -> str:
    found = CliRunner().invoke(cli, ["verify", str(export)])
    assert found.exit_code == 0, found.output
    assert "proved: " in found.stdout
    return " ".join(found.stderr.split())


def ending(monkeypatch: pytest.MonkeyPatch, end: Any) -> None:
    """Has each proof of an export end so."""

    def prove(*_: object, **__: object) -> Any:
        if isinstance(end, BaseException):
            if isinstance(end, KeyboardInterrupt):  # comes from a signal's handler
                signal.default_int_handler(signal.SIGINT, None)
            raise end
        return end

    monkeypatch.setattr("graftkit.flow.exports.proof.prove", prove)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (KeyboardInterrupt(), "it was written, and its proof was never ended"),
        (FAILED, f"its proof failed: {FAILED.message}"),
        (MISSING, "it could not be proved: xllamacpp is not installed"),
        (KILLED, f"it could not be proved: {KILLED.message}"),
    ],
    ids=["stopped", "failed", "not possible", "killed"],
)
def test_an_export_that_was_never_proved_says_so_until_it_is(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Any, said: str
) -> None:
    recipe, folder = make_recipe(export=["merged"]), tmp_path / "run"
    export = folder / "exports" / "merged"
    with monkeypatch.context() as patch:
        ending(patch, end)
        if isinstance(end, BaseException):
            with pytest.raises(type(end)):
                run(recipe, out=folder)
        else:
            run(recipe, out=folder)
        assert json.loads((export / "graftkit.json").read_bytes())["proof"]["status"] != "proved"
    assert said in told(export) and "toolkit verify" in told(export)
    assert said in verified(export)
    if isinstance(end, BaseException):
        assert "the run has not finished" in told(folder)
    if isinstance(end, BaseException):
        done = run(recipe, out=folder, resume=True)
        assert done.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    assert not ExportManifest.read(export, ()).unproved
    assert said not in told(export) + verified(export)
    with pytest.raises(FolderError, match="there is nothing to resume"):
        run(recipe, out=folder, resume=True)


def test_a_proof_that_is_not_possible_verifies_nothing(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that asks for the exit code would take it for proved."""
    folder = run(make_recipe(export=["merged"]), out=tmp_path / "run").folder
    ending(monkeypatch, MISSING)
    found = CliRunner().invoke(cli, ["verify", str(folder / "exports/merged")])
    assert isinstance(found.exception, ExportError) and "xllamacpp is not installed" in found.exception.message
    add_export(folder, "merged", ["name=other"])
    monkeypatch.undo()
    result = add_export(folder, "merged", ["name=other"])
    assert result.manifest["exports"]["other"]["proof"]["status"] == "proved"
