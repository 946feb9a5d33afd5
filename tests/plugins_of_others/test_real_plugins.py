"""Real plugins of others, knowing nothing but the public API, through the whole flow with every built-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PLUGINS = Path(__file__).parents[2] / "fixtures" / "plugins"
TESTS = Path(__file__).parents[1]
NAMES = ("graftkit-hqq", "graftkit-ia3", "graftkit-sqlite")


@pytest.fixture(scope="module")
def installed(graftkit_wheel_environment: Any) -> Any:
    for name in NAMES:
        graftkit_wheel_environment.install(PLUGINS / name)
    return graftkit_wheel_environment


@pytest.mark.parametrize("name", NAMES)
def test_their_own_tests_pass(installed: Any, name: str) -> None:
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGINS / name / "tests"))
    assert done.returncode == 0, done.stdout[-3000:]


def test_they_know_only_the_public_api() -> None:
    for path in PLUGINS.rglob("*.py"):
        for line in path.read_text().splitlines():
            if line.strip().startswith(("from graftkit.", "import graftkit.")):
                allowed = (
                    "from graftkit.testing import",
                    "from graftkit.host.lifecycle import",
                    "from graftkit.errors",
                )
                assert line.strip().startswith(allowed), f"{path.name}: {line}"


COMBINATIONS = [
    ("hqq", "lora"),
    ("hqq", "qlora"),
    ("none", "ia3"),
    ("int8", "ia3"),
    ("nf4", "ia3"),
    ("hqq", "ia3"),
]


def test_every_combination_runs_the_whole_flow_and_its_exports_are_proved(
    installed: Any, tiny_model: Path, chat_records: Path, tmp_path: Path
) -> None:
    script = (
        "import json, subprocess, sys, graftkit\n"
        "sys.path.append(sys.argv[4])\n"
        "from forked_children import ForkingPopen\n"
        "subprocess.Popen = ForkingPopen\n"
        "for quantizer, adapter in json.loads(sys.argv[2]):\n"
        "    recipe = {**json.loads(sys.argv[1]), 'quantizer': quantizer, 'adapter': adapter}\n"
        "    result = graftkit.run(recipe, out=f'{sys.argv[3]}/{quantizer}-{adapter}')\n"
        "    print(json.dumps([result.metrics, result.manifest['exports'], result.manifest['providers']]))\n"
    )
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(chat_records), "max_length": 64},
        "training": {"steps": 20, "tokens_per_step": 1024, "learning_rate": 1e-2, "device": "cpu"},
        "export": ["peft", "merged"],
    }
    given = [json.dumps(recipe), json.dumps(COMBINATIONS), str(tmp_path), str(TESTS)]
    done = installed.run("-W", "ignore", "-c", script, *given)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == len(COMBINATIONS)
    for (quantizer, adapter), (metrics, exports, providers) in zip(COMBINATIONS, lines, strict=True):
        assert {facts["proof"]["status"] for facts in exports.values()} == {"proved"}, (quantizer, adapter)
        assert metrics["after"]["holdout_loss"] < metrics["before"]["holdout_loss"], (quantizer, adapter)
        origin = providers["quantizer"]["distribution"]
        assert origin == ("graftkit-hqq" if quantizer == "hqq" else "graftkit")
