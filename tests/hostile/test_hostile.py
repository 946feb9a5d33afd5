"""Every parser takes thousands of malformed inputs: each is used, or refused in graftkit's own words."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.campaign import run
from hostile.originals import CACHE
from hostile.parsers import PARSERS, parser_named

INPUTS = int(os.environ.get("HOSTILE_INPUTS", "2000"))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The folder of what inputs are made from that takes long to make, for the processes that this module starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(tmp_path_factory.mktemp("originals")))
        yield


@pytest.mark.usefixtures("originals")
@pytest.mark.parametrize("parser", [name for name in PARSERS if name != "gguf exports"])  # each starts a server
def test_no_input_crashes_hangs_or_takes_all_memory(parser: str) -> None:
    tally = run(parser, range(INPUTS), most=5)
    said = [f"python -m hostile '{parser}' --seed {one.seed}: {one.problem}\n{one.details}" for one in tally.failures]
    assert not said, "\n".join(said)
    assert tally.outcomes["accepted"] and tally.outcomes["refused"], "the inputs are all of one kind"


@pytest.mark.parametrize(
    ("parser", "seed"), [*(("safetensors", seed) for seed in (2938, 2950, 11262, 11607)), ("records", 3412)]
)
def test_an_input_is_made_whatever_an_earlier_change_has_left(tmp_path: Path, parser: str, seed: int) -> None:
    assert parser_named(parser).make(random.Random(f"{parser}:{seed}"), tmp_path)
