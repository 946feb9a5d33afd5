"""Several data sets in one run: how often their records are seen, what the plan and the manifest say of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import graftkit
import huggingface_hub.constants
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from graftkit.cli import plan as plan_command
from graftkit.errors import Cancelled, DataError, RecipeError
from graftkit.flow.add_export import add_export
from graftkit.flow.events import Event, StepFinished
from graftkit.store.token_store import TokenStore
from graftkit.training.loop import Trainer
from hub_stand_in import FIRST, SECOND, StandIn
from integration.conftest import RecipeMaker
from made_records import written


def questions(folder: Path, name: str, count: int) -> str:
    path = folder / f"{name}.jsonl"
    lines = [json.dumps({"prompt": f"{name} {number}?", "completion": str(number)}) for number in range(count)]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    train = [
        {"path": questions(tmp_path, "whole", 20)},
        {"path": questions(tmp_path, "half", 20), "weight": 0.5},
        {"path": questions(tmp_path, "twice", 20), "weight": 2},
    ]
    return {"train": train, "holdout": 0.1, "max_length": 64}


def test_records_are_seen_as_often_as_their_data_set_weighs(
    make_recipe: RecipeMaker, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[list[list[int]]] = []
    made = Trainer.__init__

    def noted(self: Trainer, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        plans.append(self.plan)

    monkeypatch.setattr(Trainer, "__init__", noted)
    training = {"epochs": 2, "tokens_per_step": 128, "device": "cpu"}
    recipe = make_recipe(data=data, training=training, export=[])
    result = graftkit.run(recipe, out=tmp_path / "run")
    described = result.manifest["data"]["data_sets"]
    held = result.manifest["data"]["holdout_examples"]
    assert held == 6 and sum(found["records"] for found in described) == 54
    for found, weight in zip(described, (1, 0.5, 2), strict=True):
        assert found["weight"] == weight and found["seen_an_epoch"] == weight * found["records"]
    [plan] = plans
    store = TokenStore.load(tmp_path / "run/tokens/train.safetensors")
    first, second, third = (found["records"] for found in described)
    of_half = range(first, first + second)
    times = Counter(example for step in plan for example in step)
    assert store.by_example["record"].tolist() == list(range(54))
    assert [times[example] for example in range(first)] == [2] * first
    assert [times[example] for example in of_half] == [1] * second
    assert [times[example] for example in range(first + second, 54)] == [4] * third
    assert result.manifest["recipe"]["data"]["train"][1]["weight"] == 0.5


def test_a_stopped_mixture_goes_on_with_the_same_steps(
    make_recipe: RecipeMaker, data: dict[str, Any], tmp_path: Path
) -> None:
    training = {"steps": 8, "tokens_per_step": 64, "device": "cpu", "checkpoint_every": 2}
    recipe = make_recipe(data=data, training=training, export=[])

    def losses(folder: Path) -> list[Any]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"], line["tokens"]) for line in lines]

    graftkit.run(recipe, out=tmp_path / "never-stopped")
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 3:
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=tmp_path / "stopped", on_event=on_event, cancel=cancel)
    other = {**data, "train": [*data["train"][:2], {**data["train"][2], "weight": 3}]}
    with pytest.raises(RecipeError, match="started with another recipe"):
        graftkit.run({**recipe, "data": other}, out=tmp_path / "stopped", resume=True)
    graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "never-stopped")


def test_the_plan_says_how_many_records_an_epoch_sees(
    make_recipe: RecipeMaker, data: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(make_recipe(data={**data, "holdout": 0}, training={"device": "cpu"})))
    done = CliRunner().invoke(plan_command.command, [str(recipe), "--quick"], catch_exceptions=False)
    for name, seen in (("whole", 20), ("half", 10), ("twice", 40)):
        assert f"{name}.jsonl: an epoch sees {seen} of 20" in done.output
    told = CliRunner().invoke(plan_command.command, [str(recipe), "--quick", "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["records"]["data_sets"][1]["seen_an_epoch"] == 10


def test_files_of_a_folder_that_no_reader_knows_are_told(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    (folder / "more").mkdir(parents=True)
    questions(folder, "known", 20)
    for name in ("a.xlsx", "more/b.jsonl.zip", ".hidden", "README.md"):
        (folder / name).write_bytes(b"x")
    run = Path(questions(folder / "more", "of_a_run", 20)).parent
    (run / "manifest.json").write_text('{"graftkit": "0.1.0", "status": "finished"}')
    corpus = {"extend": {"tokens": 4, "corpus": f"{folder}/**/*.jsonl"}}
    planned = graftkit.plan(make_recipe(data={"train": str(folder), "holdout": 0, "max_length": 64}, tokenizer=corpus))
    assert f"{folder}/**/*.jsonl: {run}: not read, since runs or exports wrote them" in planned.notices
    told = [notice for notice in planned.notices if notice.startswith(f"{folder}: ")]
    assert told == [
        f"{folder}: a.xlsx: not read, no reader knows such files",
        f"{folder}: {run}: not read, since runs or exports wrote them",
    ]
    assert len(planned.samples.train) == 20


def test_data_sets_of_which_nothing_is_seen_are_told_or_refused(make_recipe: RecipeMaker, data: dict[str, Any]) -> None:
    few = [{**entry, "weight": 0.01} for entry in data["train"]]
    with pytest.raises(RecipeError, match="no record is seen in 1 epoch"):
        graftkit.plan(make_recipe(data={**data, "train": few}, training={"epochs": 1}))
    planned = graftkit.plan(make_recipe(data={**data, "train": [data["train"][0], few[1]]}, training={"epochs": 1}))
    assert any("half.jsonl: none of its" in notice for notice in planned.notices)
    with pytest.raises(RecipeError, match=r"data\.holdout: a weight says how often records are trained on"):
        graftkit.plan(make_recipe(data={"train": data["train"], "holdout": [few[0]]}))
    with pytest.raises(RecipeError, match="weight"):
        graftkit.plan(make_recipe(data={"train": [{**data["train"][0], "weight": 0}]}))


@pytest.mark.parametrize("offline", [False, True])
def test_a_stopped_run_on_a_data_set_of_the_hub_goes_on_at_its_commit(
    make_recipe: RecipeMaker, hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, offline: bool
) -> None:
    """Whatever its branch means by then, and without asking the hub where that is not to be asked."""
    rows = [json.dumps({"prompt": f"number {n}?", "completion": str(n)}) for n in range(40)]
    hub.commits = {
        FIRST: {"data/train-00000-of-00001.jsonl": "\n".join(rows).encode(), "README.md": b""},
        SECOND: {"data/train-00000-of-00001.jsonl": "\n".join(reversed(rows[:30])).encode()},
    }
    training = {"steps": 6, "tokens_per_step": 64, "device": "cpu", "checkpoint_every": 2}
    data = {"train": "hub:org/name", "holdout": 0.1, "max_length": 64}
    recipe = make_recipe(data=data, training=training, export=[])
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 3:
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=tmp_path / "stopped", on_event=on_event, cancel=cancel)
    hub.branches["main"] = SECOND
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    asked = len(hub.asked)
    found = graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    assert (len(hub.asked) == asked) is offline
    assert found.manifest["data"]["revisions"] == {"hub:org/name@main": FIRST}
    adapters = [result.manifest["artifacts"]["adapter/adapter.safetensors"] for result in (found, whole)]
    assert adapters[0] == adapters[1] and found.metrics == whole.metrics
    if offline:
        assert add_export(tmp_path / "stopped", "merged").exports["merged"].is_dir()


def asked_by(count: int, customers: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n}?", "completion": str(n), "customer": n % customers} for n in range(count)]


def test_records_with_the_same_value_stay_on_one_side(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Whoever reads the files, and where only their first records are read; the manifest says how many values."""
    records = asked_by(90, 10)
    lines = written(tmp_path / "a.jsonl", records[:40])
    table = tmp_path / "b.csv"
    table.write_text(
        "prompt,completion,customer\n" + "".join(",".join(map(str, r.values())) + "\n" for r in records[40:70])
    )
    packed = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records[70:]), packed)
    train = [str(lines), str(table), {"path": str(packed), "first": 10}]
    data = {"train": train, "holdout": 0.2, "holdout_by": "customer", "max_length": 64}
    recipe = make_recipe(data=data, training={"steps": 2, "device": "cpu"}, export=[])
    plan = graftkit.plan(recipe)
    customer = {record["prompt"]: record["customer"] for record in records}
    sides = [{customer[sample.prompt] for sample in side} for side in (plan.samples.train, plan.samples.holdout)]
    assert not sides[0] & sides[1] and [len(side) for side in sides] == [8, 2]
    assert len(plan.samples.holdout) == 16 and len(plan.samples.train) == 64
    assert "2 values of customer held out, 8 trained on" in plan.to_json()["records"]["text"]
    assert not any("customer" in notice for notice in plan.notices), "the column is read"
    other = graftkit.plan(recipe, overrides=["training.seed=5"])
    assert {customer[sample.prompt] for sample in other.samples.holdout} != sides[1]
    graftkit.run(recipe, out=tmp_path / "run", overrides=["training.steps=1"])
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["data"]["holdout_by"] == {"column": "customer", "train": 8, "holdout": 2}
    written(lines, [{**record, "customer": 9 - record["customer"]} for record in records[:40]])
    with pytest.raises(DataError, match="records have changed since the run was started"):
        graftkit.run(recipe, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("records", "by", "message"),
    [
        (asked_by(9, 3), "custmer", r"a.jsonl:1: the record has no value of 'custmer'.*\n.*Did you mean 'customer'"),
        ([*asked_by(9, 3), {"prompt": "a", "completion": "b"}], "customer", "a.jsonl:10: the record has no value of"),
        ([*asked_by(9, 3), {"prompt": "a", "completion": "b", "customer": " "}], "customer", "a.jsonl:10: .* no value"),
        ([{**asked_by(1, 1)[0], "customer": [1]}], "customer", "a.jsonl:1: the record has a list as 'customer'"),
        (asked_by(9, 1), "customer", "every record has the same 'customer': none of them can be held out"),
    ],
)
def test_a_record_without_a_value_is_refused(
    make_recipe: RecipeMaker, tmp_path: Path, records: list[dict[str, Any]], by: str, message: str
) -> None:
    path = written(tmp_path / "a.jsonl", records)
    with pytest.raises(DataError, match=message):
        graftkit.plan(make_recipe(data={"train": str(path), "holdout": 0.2, "holdout_by": by}))


def test_what_groups_make_of_the_share_is_told(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", asked_by(90, 3))
    plan = graftkit.plan(make_recipe(data={"train": str(path), "holdout": 0.1, "holdout_by": "customer"}))
    assert (
        "of 90 records 30 are held out, and not a share of 0.1: those with the same 'customer' stay together"
        in plan.notices
    )
    with pytest.raises(
        RecipeError, match=r"data\.holdout_by says which records are held out together, but data\.holdout is 0"
    ):
        graftkit.plan(make_recipe(data={"train": str(path), "holdout": 0, "holdout_by": "customer"}))
    held = written(tmp_path / "held.jsonl", [{"prompt": "new", "completion": "n", "customer": 2}, asked_by(1, 1)[0]])
    plan = graftkit.plan(make_recipe(data={"train": str(path), "holdout": str(held), "holdout_by": "customer"}))
    assert "59 records share their 'customer' with holdout records; training does not see them" in plan.notices
    assert "1 records are also held out; training does not see them" in plan.notices
