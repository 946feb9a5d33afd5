"""Wrong requests get one clear message and exit code 2, before torch is imported, and leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from graftkit.interfaces.vocabulary_limits import MOST_IDS
from graftkit.testing import tiny_model_folder

RECIPE = """\
model: ./model
data:
  train: records.jsonl
  max_length: 64
quantizer: nf4
adapter: {use: lora, rank: 4}
training: {steps: 2, tokens_per_step: 256}
export: [merged]
"""
ROW = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"

DRIVER = """
import json, sys
from graftkit.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    heavy = [name for name in ("torch", "transformers", "bitsandbytes") if name in sys.modules]
    print(json.dumps({"code": done.code, "heavy": heavy}))
"""


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny_model_folder(tmp_path_factory.mktemp("bad") / "model")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def place(tmp_path: Path, model_files: dict[str, bytes]) -> Path:
    """A folder with a recipe, records and a model, all of them right."""
    (tmp_path / "model").mkdir()
    for name, data in model_files.items():
        (tmp_path / "model" / name).write_bytes(data)
    (tmp_path / "records.jsonl").write_text(ROW * 3 + ROW.replace('"a"', '"c"') * 3)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def ask(place: Path, *more: str, command: str = "run") -> tuple[int, str, list[str]]:
    """Runs the command; returns its exit code, what it wrote to standard error, and what heavy it imported."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, command, str(place / "recipe.yaml"), "--out", str(place / "out"), *more],
        capture_output=True,
        text=True,
        cwd=place,
    )
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return facts["code"], done.stderr, facts["heavy"]


def recipe(old: str, new: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        text = (place / "recipe.yaml").read_text()
        assert old in text
        (place / "recipe.yaml").write_text(text.replace(old, new))

    return change


def records(text: str | bytes) -> Callable[[Path], None]:
    data = text.encode() if isinstance(text, str) else text
    return lambda place: (place / "records.jsonl").write_bytes(ROW.encode() + data + b"\n") and None


def file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes())) and None


def more_ids(data: bytes) -> bytes:
    """Adds pieces; added tokens may be without a record, as long as no record of the data holds one."""
    tokenizer = json.loads(data)
    vocab = tokenizer["model"]["vocab"]
    vocab |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocab |= {f"extra{id}": id for id in range(259, 330)}
    return json.dumps(tokenizer).encode()


def flip_header(data: bytes) -> bytes:
    return data[:20] + b"\xff\x00" + data[22:]


CASES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "misspelt section": (recipe("adapter:", "adaptor:"), ["recipe.yaml:6", "'adaptor'", "'adapter'"]),
    "misspelt key": (recipe("tokens_per_step", "token_per_step"), ["recipe.yaml:7", "'tokens_per_step'"]),
    "misspelt field of a provider": (recipe("rank: 4", "rnak: 4"), ["recipe.yaml:6", "adapter.rnak", "'rank'"]),
    "value of a wrong type": (recipe("rank: 4", "rank: four"), ["recipe.yaml:6", "adapter.rank", "integer", "'four'"]),
    "value out of range": (recipe("steps: 2", "steps: 0"), ["recipe.yaml:7", "training.steps"]),
    "unknown quantizer": (recipe("nf4", "nf5"), ["recipe.yaml:5", "no quantizer is called 'nf5'", "'nf4'"]),
    "unknown adapter": (recipe("use: lora", "use: loora"), ["recipe.yaml:6", "'loora'", "'lora'"]),
    "unknown exporter": (recipe("[merged]", "[mergd]"), ["recipe.yaml:8", "'mergd'", "'merged'"]),
    "more new tokens than there may be ids": (
        recipe("adapter:", f"tokenizer: {{extend: {{tokens: {MOST_IDS - 10}}}}}\nadapter:"),
        ["recipe.yaml:6", f"{MOST_IDS - 10:,} tokens after the base's ", f"may have {MOST_IDS:,} ids"],
    ),
    "no YAML": (recipe("data:\n", "data: [\n"), ["recipe.yaml:", "not valid YAML"]),
    "missing recipe": (lambda place: (place / "recipe.yaml").unlink(), ["recipe.yaml", "no such file"]),
    "missing model": (recipe("./model", "./modle"), ["modle", "no such folder"]),
    "missing records": (recipe("records.jsonl", "record.jsonl"), ["record.jsonl", "no such file"]),
    "empty records": (lambda place: (place / "records.jsonl").write_text("\n"), ["records.jsonl", "no record"]),
    "a line that is no JSON": (records("{oops}"), ["records.jsonl:2", "no JSON"]),
    "a line of another shape": (
        records('{"question": "x", "answer": "y"}'),
        ["records.jsonl:2", "question-answer", "of the format messages", "make it two files"],
    ),
    "a line of a wrong type": (records('{"messages": 3}'), ["records.jsonl:2", '"messages" is a number']),
    "an unknown role": (records('{"messages": [{"role": "usr", "content": "x"}]}'), ["records.jsonl:2", "'usr'"]),
    "records that are not UTF-8": (records(b'{"text": "\xe9t\xe9"}'), ["records.jsonl:2", "not UTF-8"]),
    "a target that matches nothing": (
        recipe("rank: 4", "rank: 4, targets: q_porj"),
        ["recipe.yaml:6", "'q_porj' matches no layer", "'q_proj'"],
    ),
    "truncated weights": (file("model/model.safetensors", lambda d: d[:-100]), ["model.safetensors", "truncated"]),
    "corrupted weights": (file("model/model.safetensors", flip_header), ["model.safetensors", "header"]),
    "no tokenizer": (lambda place: (place / "model/tokenizer.json").unlink(), ["no tokenizer.json"]),
    "more ids than rows": (file("model/tokenizer.json", more_ids), ["330 ids", "320 rows"]),
    "a truncated GGUF": (
        lambda place: (
            (place / "m.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\x09") and recipe("./model", "m.gguf")(place)
        ),
        ["m.gguf"],
    ),
    "an output folder with other files": (
        lambda place: (place / "out").mkdir() or (place / "out" / "precious.txt").write_text("x"),
        ["out", "files that are no run"],
    ),
    "an output folder that can't be": (lambda place: (place / "out").write_text("x"), ["out", "it is a file"]),
}


@pytest.mark.fresh_children
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_request_is_refused_in_one_message(place: Path, case: str) -> None:
    change, expected = CASES[case]
    change(place)
    code, errors, heavy = ask(place)
    assert code == 2, errors
    assert heavy == [], "torch was imported for it"
    assert "Traceback" not in errors and len(errors.strip().splitlines()) <= 4, errors
    for fragment in expected:
        assert fragment in errors
    assert not (place / "out" / "manifest.json").exists()
    if case == "an output folder with other files":
        assert (place / "out" / "precious.txt").read_text() == "x"
    elif case != "an output folder that can't be":
        assert not (place / "out").exists()


def test_several_mistakes_are_told_at_once(place: Path) -> None:
    recipe("steps: 2", "stesp: 2, learning_rate: fast")(place)
    _, errors, _ = ask(place)
    assert "2 things are wrong" in errors and "'training.stesp'" in errors and "training.learning_rate" in errors


def test_an_override_is_named_as_such(place: Path) -> None:
    code, errors, _ = ask(place, "--set", "training.epochs=many")
    assert code == 2 and "--set training.epochs=many" in errors


@pytest.mark.fresh_children
def test_a_right_request_judged_by_a_quick_plan_loads_nothing_heavy(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "plan", str(place / "recipe.yaml"), "--json", "--quick"],
        capture_output=True,
        text=True,
    )
    plan, facts = map(json.loads, done.stdout.strip().splitlines())
    assert facts == {"code": 0, "heavy": []}
    assert plan["model"]["parameters"] == 320 * 64 + 2 * (37_120 - 256) + 64 + 2 * 128
    assert len(plan["adapter"]["targets"]) == 14


def test_an_unexpected_error_is_still_one_message_unless_asked(place: Path) -> None:
    (place / "model" / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    code, errors, _ = ask(place)
    assert code == 2 and "Traceback" not in errors.partition("error:")[2]
    _, errors, _ = ask(place, "--traceback")
    assert "Traceback" in errors


@pytest.mark.fresh_children
def test_an_output_that_can_not_be_written_is_named() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "graftkit", "schema"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: standard output: can't be written: No space left on device"


def test_an_unknown_command_names_the_nearest(place: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "graftkit", "rnu", "x"], capture_output=True, text=True, cwd=place)
    assert done.returncode == 2 and "'run'" in done.stderr
