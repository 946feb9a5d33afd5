"""A proof that has no room on a disk or in memory says nothing of the export, and it is told so."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ExportError, PluginCallError, ProofStoppedError
from graftkit.flow.exports import prove
from graftkit.flow.exports.proof import read_proof


def of_a_plugin(error: Exception) -> Exception:
    try:
        raise PluginCallError("plugin x 1.0: it failed") from error
    except PluginCallError as raised:
        return raised


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, ProofStoppedError),
        (of_a_plugin(FULL), ProofStoppedError),
        (MemoryError(), ProofStoppedError),
        (OSError(errno.ENOENT, "No such file"), ExportError),
        (of_a_plugin(ValueError("no such layer")), ExportError),
    ],
    ids=["disk", "disk, in a plugin", "memory", "a file that is missing", "a plugin's own"],
)
def test_what_a_proof_ends_with_is_told(
    error: Exception, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise error

    monkeypatch.setattr(prove, "check_export", fails)
    said = json.dumps(prove.answer(tmp_path, tmp_path / "probes", trusted=True))
    with pytest.raises(ExportError) as caught:
        read_proof(tmp_path, 0, said, "")
    assert type(caught.value) is expected
    assert ("toolkit verify" in caught.value.hint) == (expected is ProofStoppedError)
