"""What a run says of itself has one form, which is read and written in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import FolderError
from graftkit.flow.answering.reload import reload
from graftkit.flow.folders.folder import claim
from graftkit.flow.planning.earlier_run import EarlierRun
from graftkit.flow.state.resume import find_run
from graftkit.report.run_manifest import FORMAT, MANIFEST, RunManifest
from pydantic import ValidationError

WHOLE: dict[str, Any] = {
    "graftkit": "0.1",
    "format": FORMAT,
    "status": "interrupted",
    "seconds": 1,
    "progress": {"stage": "training", "step": 3, "steps": 9},
    "stages": [{"name": "corpus", "seconds": 0.5, "train_examples": 3}],
    "data": {"date": "2026-01-31", "system": None, "example_prompt": None, "train_examples": 3},
    "metrics": {"before": {"holdout_loss": 1.5, "bits_per_byte": 0.7, "bytes": 8}},
    "of_a_later_version": [1],
}

DAMAGED = {
    "status": "ended",
    "seconds": "long",
    "recipe": [],
    "stages": {},
    "notices": [1],
    "data": {"date": 3},
    "tokenizer": {"fingerprint": None},
    "model": {"files": {}},
    "parameters": {"total": "many"},
    "stop_tokens": 3,
    "metrics": {"before": {"bits_per_byte": 1.0}},
    "exports": {"merged": {"folder": "x"}},
    "artifacts": ["adapter"],
}


PROVED: dict[str, Any] = {"status": "proved", "max_abs_diff": 0.0, "tolerance": 1e-3, "loaded_with": {"peft": "1"}}


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ({}, "of 'status'"),
        ({"status": "prooved", "reason": "x"}, "of 'status'"),
        ({"status": "failed"}, "of 'reason': field required"),
        ({"status": "proved"}, "of 'max_abs_diff': field required"),
        ({**PROVED, "loaded_with": ["peft"]}, "of 'loaded_with'"),
        ({**PROVED, "set_aside": [1]}, "of 'set_aside'"),
        ({**PROVED, "rounding": {"divergence": 1}}, "of 'rounding.allowed'"),
        ({**PROVED, "on_base_file": {"within": 1}}, "of 'on_base_file"),
        ({**PROVED, "from_trained": {"largest": 0, "mean": 0, "top1": 1}}, "does not say 'merged_onto'"),
    ],
)
def test_a_damaged_proof_is_refused_where_the_manifest_is_read(
    tmp_path: Path, proof: dict[str, Any], said: str
) -> None:
    folder = written(tmp_path / "run", exports={"peft": {"folder": "x", "proof": proof}})
    (folder / "tokens").mkdir()
    with pytest.raises(FolderError, match=rf"damaged: 'exports\.peft\.proof': .*{said}"):
        RunManifest.read(folder)


def written(folder: Path, **changed: Any) -> Path:
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({**WHOLE, **changed}))
    return folder


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Also keys that this version doesn't know: a resumed run that is refused puts the manifest back."""
    found = RunManifest.read(written(tmp_path / "x"))
    assert found is not None and found.to_json() == WHOLE
    found.write(tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text()) == WHOLE
    assert found.data is not None and found.data.date == "2026-01-31" and found.metrics["before"].answers == 0


def readers(folder: Path) -> tuple[Callable[[], object], ...]:
    """Whatever in the flow reads a run's manifest."""
    return (
        lambda: find_run(folder, {}),
        lambda: EarlierRun.read(folder),
        lambda: reload(str(folder)),
        lambda: claim(folder, overwrite=True),
    )


@pytest.mark.parametrize("key", DAMAGED)
def test_a_damaged_manifest_is_refused_naming_the_key(tmp_path: Path, key: str) -> None:
    folder = written(tmp_path / "x", **{key: DAMAGED[key]})
    for ask in (lambda: RunManifest.read(folder), *readers(folder)):
        with pytest.raises(FolderError, match=f"manifest.json is damaged: '{key}") as caught:
            ask()
        assert caught.value.where == str(folder) and caught.value.hint
    assert [path.name for path in folder.iterdir()] == [MANIFEST]


def test_a_manifest_of_another_form_is_refused_and_says_by_what_it_was_written(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"has the format 2, this graftkit reads 1\n.*graftkit 9\.0"):
        RunManifest.read(written(tmp_path / "x", format=2, graftkit="9.0"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"graftkit": "0.1", "status": "fin', "it is no JSON: Unterminated string"),
        (b'{"graftkit": "0.1", "status": "finished\xff"}', "it is no JSON: 'utf-8' codec can't decode"),
        (b"", "it is no JSON"),
        (b'["graftkit"]', "it is no JSON object"),
        (b'{"graftkit": ' + b"9" * 5000 + b"}", "it is no JSON: a number too long to read"),
        (b'{"graftkit": "0.1", "st\x61tuS": "finished"}', "it does not say 'status'"),
        (b'{"graftki\x54": "0.1", "status": "finished"}', "it does not say 'graftkit'"),
    ],
)
def test_a_runs_damaged_manifest_is_told_in_words(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    (tmp_path / "tokens").mkdir()
    for ask in readers(tmp_path):
        with pytest.raises(FolderError, match=f"the run's manifest.json is damaged: {said}") as caught:
            ask()
        assert caught.value.where == str(tmp_path) and "Put the file back" in caught.value.hint
    assert (tmp_path / MANIFEST).read_bytes() == content


def test_a_stage_can_record_only_what_the_manifest_has_room_for() -> None:
    manifest = RunManifest(graftkit="0.1", status="running")
    assert manifest.with_facts(stop_tokens=[1, 2]).to_json()["stop_tokens"] == [1, 2]
    assert "stop_tokens" not in manifest.to_json()
    with pytest.raises(ValidationError):
        manifest.with_facts(stop_tokens="</s>")
