"""A JSON array is read an element at a time, wherever the parts end in which the file is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from graftkit import RecordSource
from graftkit_readers import json_array
from graftkit_readers.json_array import JsonArray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TEXTS = st.text(st.sampled_from('ab "\\[]{},:\n\té日'), max_size=6)
VALUES = st.recursive(TEXTS | st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner))
OBJECTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=5)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects=OBJECTS, part=st.integers(1, 40), indent=st.sampled_from([None, 1]), wrapped=st.booleans())
def test_every_element_is_read_whatever_the_parts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objects: list[Mapping[str, Any]],
    part: int,
    indent: int | None,
    wrapped: bool,
) -> None:
    monkeypatch.setattr(
        json_array, "_PART", max(part, 10) if wrapped else part
    )  # its first value is looked for at once
    path = tmp_path / "a.json"
    whole = {"d": objects, "note": 'of "x": [{', "parts": {"sizes": [part]}} if wrapped else objects
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=indent))
    assert [record.load() for record in JsonArray().records(RecordSource(path))] == objects


def test_what_has_been_read_is_not_copied_with_every_element(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": str(number)} for number in range(100_000)]))
    assert path.stat().st_size > json_array._PART
    source = RecordSource(path)
    with source.open() as file:
        text = json_array._Text(file, source)
        changed, before = 0, ""
        for _ in json_array._elements(text):
            changed += text.text is not before
            before = text.text
    assert changed <= path.stat().st_size // json_array._PART + 1
