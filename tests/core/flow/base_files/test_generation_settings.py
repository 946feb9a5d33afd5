"""What a generation stops at, and how, once the vocabulary may have changed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from graftkit.flow.base_files.generation_settings import generation_config, stop_tokens
from graftkit.interfaces.vocabulary import VocabularyChange

BASE = {"eos_token_id": [2, 9], "bos_token_id": 1, "suppress_tokens": [4], "temperature": 0.5}
EXTENDED = VocabularyChange("extended", 20, (19,), ((1, 2),))
REPLACED = VocabularyChange("replaced", 20, (19,), ((1, 2),), kept={0: 3})


class Roles:
    def __init__(self, **ids: int) -> None:
        self.ids = ids

    def role_token(self, role: str) -> int | None:
        return self.ids.get(role)


def files(**settings: Any) -> Any:
    return SimpleNamespace(generation_config=settings)


@pytest.mark.parametrize("change", [None, EXTENDED])
def test_ids_that_stay_count_beside_those_of_training_and_the_tokenizer(change: VocabularyChange | None) -> None:
    stop = stop_tokens(files(**BASE), change, Roles(eos=5), [7, 2])
    assert stop == [2, 5, 7, 9]
    assert generation_config(files(**BASE), change, Roles(eos=5, bos=8), stop) == {**BASE, "eos_token_id": stop}


def test_ids_that_moved_are_the_tokenizers() -> None:
    stop = stop_tokens(files(**BASE), REPLACED, Roles(eos=5, bos=8), [7])
    assert stop == [5, 7]
    assert generation_config(files(**BASE), REPLACED, Roles(eos=5, bos=8), stop) == {
        "temperature": 0.5,
        "bos_token_id": 8,
        "eos_token_id": [5, 7],
    }


@pytest.mark.parametrize("eos", [None, 3, [3]])
def test_a_base_may_name_no_stop_token_one_or_several(eos: Any) -> None:
    assert stop_tokens(files(eos_token_id=eos), None, Roles(), []) == ([] if eos is None else [3])
    assert stop_tokens(SimpleNamespace(), None, Roles(), []) == []
    assert generation_config(SimpleNamespace(), None, Roles(), []) == {}


def test_what_names_code_is_no_exports() -> None:
    """transformers drops these as it loads an export, whose proof would find them missing once all was trained."""
    code = {
        "auto_map": {"AutoConfig": "x.C"},
        "custom_generate": "a/b",
        "megatron_config": {},
        "trust_remote_code": True,
    }
    assert generation_config(files(temperature=0.5, **code), None, Roles(), []) == {"temperature": 0.5}


def test_it_loads_no_torch() -> None:
    script = "import sys, graftkit.flow.base_files.generation_settings; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
