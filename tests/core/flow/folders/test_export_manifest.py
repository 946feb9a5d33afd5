"""An export's own word is a stranger's: each key is judged, and what nobody knows is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import FolderError
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, FORMAT, OF_THE_MANIFEST, TO_PROVE, ExportManifest

WHOLE: dict[str, Any] = {
    "graftkit": "0.1",
    "manifest_format": FORMAT,
    "exporter": {"name": "merged", "target": "a:B"},
    "model": {"reference": "./m", "files": {"a": "0"}},
    "model_source": {},
    "quantizer": {},
    "dtype": "bfloat16",
    "tolerance": 0,
    "system": None,
    "files": {"a": {"bytes": 1, "sha256": "0"}},
    "format": "merged",
}

DAMAGED: dict[str, Any] = {
    "exporter": "merged",
    "model": [],
    "model_source": 1,
    "quantizer": None,
    "adapter": [],
    "targets": "q_proj",
    "tokenizer": "x",
    "tokenizer_fingerprint": None,
    "dtype": "nn",
    "stop_tokens": ["</s>"],
    "system": 3,
    "tolerance": True,
    "files": [],
}


def written(folder: Path, **changed: Any) -> Path:
    (folder / EXPORT_MANIFEST).write_text(json.dumps({**WHOLE, **changed}))
    return folder


def test_a_manifest_comes_back_as_it_was_written_with_an_exporters_facts(tmp_path: Path) -> None:
    found = ExportManifest.read(written(tmp_path), TO_PROVE)
    assert (found.model.reference, found.dtype, found.tolerance) == ("./m", "bfloat16", 0)
    found.write(tmp_path)
    assert json.loads((tmp_path / EXPORT_MANIFEST).read_text()) == WHOLE


@pytest.mark.parametrize("key", DAMAGED)
def test_a_key_of_another_shape_is_refused_whoever_reads(tmp_path: Path, key: str) -> None:
    with pytest.raises(FolderError, match=f"it is damaged: '{key}' is ") as caught:
        ExportManifest.read(written(tmp_path, **{key: DAMAGED[key]}), ("files",))
    assert caught.value.where == str(tmp_path / EXPORT_MANIFEST) and caught.value.hint


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="it is damaged: one of its keys is no text"):
        ExportManifest.read(written(tmp_path, **{"\ud800": 1}), ("files",))


@pytest.mark.parametrize("key", TO_PROVE)
def test_a_key_that_is_needed_and_missing_is_told(tmp_path: Path, key: str) -> None:
    found = {name: value for name, value in WHOLE.items() if name != key}
    (tmp_path / EXPORT_MANIFEST).write_text(json.dumps(found))
    assert ExportManifest.read(tmp_path, ("files",)).files
    with pytest.raises(FolderError, match=f"it does not say '{key}'"):
        ExportManifest.read(tmp_path, TO_PROVE)


def test_another_form_is_refused_naming_what_wrote_it(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match='has the form 2, this graftkit reads 1\n.*graftkit "9.0" wrote it'):
        ExportManifest.read(written(tmp_path, manifest_format=2, graftkit="9.0"), ())


def test_every_key_of_cores_is_declared() -> None:
    assert WHOLE.keys() - {"format"} <= OF_THE_MANIFEST
