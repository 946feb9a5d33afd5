"""The model card that each export has, as the hub and people read it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import graftkit
import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli import export
from graftkit.flow.answering.reload import reload
from graftkit.flow.exports import model_card
from graftkit.flow.folders.own_files import others_files
from graftkit.flow.reporting import report
from graftkit.flow.verify import check_files
from graftkit.interfaces.export_card import CardRequest, ExportCard, LoadingExample
from graftkit.report.card_facts import CardFacts, facts_of_run
from graftkit.report.model_card import hub_id, render_card
from graftkit.report.run_manifest import AdapterSource, RunManifest
from graftkit.store.file_hashes import sha256_of
from graftkit.testing import tiny_model_folder
from graftkit_exporters.peft_folder import PeftExporter
from graftkit_gguf.lora_exporter import GgufLoraExporter
from graftkit_gguf.model_exporter import GgufExporter
from markdown_it import MarkdownIt

HOSTILE = (
    "a`b\n---\nlicense: mit\n<script>x()</script><img src=x onerror=y>[x](javascript:z)\u202eb ``` </details> www.e.com"
)
PROVED = {"status": "proved", "max_abs_diff": 0.0, "tolerance": 1.0, "loaded_with": {"peft": "1"}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with every built-in export of an unchanged vocabulary, of a base that says its license."""
    folder = tmp_path_factory.mktemp("card")
    model = tiny_model_folder(folder / "model")
    (model / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: other\n")
    said = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": str(n)}] for n in range(30)]
    (folder / "my records.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in said))
    recipe = {
        "model": str(model),
        "data": {"train": str(folder / "my records.jsonl"), "holdout": 0.2, "max_length": 64},
        "adapter": {"use": "lora", "rank": 4},
        "training": {"steps": 8, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "export": ["peft", "merged"],
    }
    own = PeftExporter.export

    def untidy(self: PeftExporter, trained: Any, folder: Path) -> Mapping[str, Any]:
        """Does what libraries do: they write a README.md of their own."""
        (folder / "README.md").write_text("---\nlibrary_name: other\n---\n[More Information Needed]\n")
        return own(self, trained, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PeftExporter, "export", untidy)
        return graftkit.run(recipe, out=folder / "run")


@pytest.fixture(scope="module")
def grown(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with new tokens, in both forms that hold an adapter."""
    recipe = {key: run.manifest["recipe"][key] for key in ("model", "adapter")} | {
        "data": {"train": run.manifest["recipe"]["data"]["train"][0]["path"], "max_length": 64},
        "tokenizer": {"extend": {"tokens": 4}},
        "training": {"steps": 4, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "export": ["peft", "extended-base"],
    }
    return graftkit.run(recipe, out=tmp_path_factory.mktemp("grown") / "run")


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    found = re.fullmatch(r"---\n(.*?)\n---\n(.*)", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1]), found[2]


def test_each_export_has_one_card_that_its_manifest_lists(run: Any) -> None:
    wanted = {"peft": "peft", "merged": "transformers"}
    assert run.exports.keys() == wanted.keys()
    for name, folder in run.exports.items():
        matter, text = card_of(folder)
        assert matter["library_name"] == wanted[name] and matter["pipeline_tag"] == "text-generation"
        assert matter["license"] == "apache-2.0" and {"graftkit", "lora"} <= {*matter["tags"]}
        assert "base_model" not in matter, "a folder on this machine is nothing that the hub knows"
        assert "`my records.jsonl`: 24 records" in text and "| holdout loss |" in text and "logits within" in text
        assert run.manifest["model"]["files"]["model.safetensors"] in text
        assert "More Information Needed" not in text
        listed = json.loads((folder / "graftkit.json").read_text())["files"]["README.md"]
        assert listed["sha256"] == sha256_of(folder / "README.md")
        assert len(check_files(folder)) == 2


def test_a_gguf_file_is_loaded_by_llama_cpp_and_ollama(tmp_path: Path) -> None:
    card = GgufExporter().card(CardRequest(tmp_path, "owner/base", chat=True))
    assert (card.library, card.relation) == ("gguf", "quantized")
    assert [example.program for example in card.loading] == ["llama.cpp", "Ollama"]
    assert ["model.gguf" in card.loading[0].code, "-f Modelfile" in card.loading[1].code] == [True, True]


def test_a_gguf_adapter_is_put_on_its_base(tmp_path: Path) -> None:
    card = GgufLoraExporter().card(CardRequest(tmp_path, "/models/it's base.gguf", chat=False))
    assert (card.library, card.relation) == ("gguf", "adapter")
    assert "-m '/models/it'\"'\"'s base.gguf' --lora adapter.gguf" in card.loading[0].code
    elsewhere = GgufLoraExporter().card(CardRequest(tmp_path, "owner/base", chat=True))
    assert "-m BASE.gguf --lora adapter.gguf" in elsewhere.loading[0].code


def test_a_run_that_is_killed_at_its_card_or_report_finds_nothing_of_somebody_elses(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {key: run.manifest["recipe"][key] for key in ("model", "adapter")} | {
        "data": {"train": run.manifest["recipe"]["data"]["train"][0]["path"], "max_length": 64},
        "training": {"steps": 1, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "export": ["merged"],
    }

    def killed(write: Any) -> Any:
        def end(path: Path, content: Any) -> None:
            write(path, content)
            signal.default_int_handler(signal.SIGINT, None)

        return end

    monkeypatch.setattr(model_card, "write_text", killed(model_card.write_text))
    with pytest.raises(KeyboardInterrupt):
        graftkit.run(recipe, out=tmp_path / "run")
    manifest = RunManifest.read(tmp_path / "run")
    assert manifest is not None
    as_killed = [name for name in manifest.artifacts if not name.startswith("exports/")]
    left = manifest.with_facts(artifacts={}, written=as_killed)
    assert others_files(tmp_path / "run", left) == []
    monkeypatch.undo()
    assert len(check_files(graftkit.run(recipe, out=tmp_path / "run", resume=True).exports["merged"])) == 2
    monkeypatch.setattr(report, "write_bytes", killed(report.write_bytes))
    with pytest.raises(KeyboardInterrupt):
        graftkit.export(tmp_path / "run", "peft", proof="later")
    left = RunManifest.read(tmp_path / "run")
    assert left is not None and left.status == "finished" and others_files(tmp_path / "run", left) == []


def python_of(folder: Path, base: str) -> str:
    """The card's program, with the base model's path where the card has its name."""
    [code] = re.findall(r"```python\n(.*?)\n```", card_of(folder)[1], re.DOTALL)
    return str(code).replace('"./model"', json.dumps(base))


def test_no_card_says_where_the_files_lie_on_this_machine(run: Any, grown: Any) -> None:
    """Nor does its recipe: the path has the name of whoever trained it."""
    place = str(Path(run.manifest["model"]["reference"]).parent)
    for folder in (*run.exports.values(), *grown.exports.values()):
        text = (folder / "README.md").read_text()
        assert place not in text and "`model`" in text
    [told] = [line for line in (run.exports["peft"] / "README.md").read_text().splitlines() if "place of" in line]
    assert "the path of the base model in the place of `model`" in told


def test_a_pattern_of_folders_is_the_name_of_its_files_in_the_card(run: Any, tmp_path: Path) -> None:
    """Its folder is there only up to the first star."""
    manifest = RunManifest.model_validate(run.manifest)
    recipe = {"data": {"train": [{"path": f"{tmp_path}/*/rows.jsonl"}]}, "said": ["/[INST]/x/y", "/*/x"]}
    text = render_card("peft", facts_of_run(manifest.model_copy(update={"recipe": recipe}), "peft"), PROVED, None)
    assert str(tmp_path) not in text and '"path": "rows.jsonl"' in text
    assert '"/[INST]/x/y"' in text and '"/*/x"' in text


@pytest.mark.parametrize("name", ["peft", "merged"])
def test_what_the_card_says_to_run_runs_and_answers(
    run: Any, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.exports[name])
    exec(python_of(run.exports[name], run.manifest["model"]["reference"]), {})
    found = capsys.readouterr().out
    assert found.rstrip("\n") == "".join(reload(str(run.exports[name])).stream("Hello")).rstrip("\n")


@pytest.mark.parametrize("name", ["peft", "extended-base"])
def test_new_rows_are_loaded_as_the_card_says(
    grown: Any, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = grown.exports[name]
    monkeypatch.chdir(folder)
    exec(python_of(folder, grown.manifest["model"]["reference"]), {})
    found = capsys.readouterr().out
    assert found.rstrip("\n") == "".join(reload(str(folder)).stream("Hello")).rstrip("\n")
    served = "vllm serve" in card_of(folder)[1]
    assert served == (name == "extended-base"), "vLLM takes no embedding rows in an adapter"


def hostile_manifest(run: Any) -> RunManifest:
    data = json.loads(json.dumps({key: run.manifest[key] for key in run.manifest if key != "artifacts"}))
    data["model"]["reference"] = data["recipe"]["model"]["path"] = HOSTILE
    data["model"]["files"] = {HOSTILE: "0" * 64}
    data["data"]["data_sets"][0]["path"] = HOSTILE.replace("/", "|")
    data["recipe"]["data"]["train"][0]["path"] = HOSTILE
    data["data"]["revisions"] = {"hub:owner/set@main": "1" * 40, f"hub:{HOSTILE}@main": "2" * 40}
    data["providers"]["adapter"]["name"] = HOSTILE
    return RunManifest.from_json(data)


def test_nothing_that_a_name_holds_becomes_markup_or_front_matter(run: Any) -> None:
    card = ExportCard(HOSTILE, "finetune", [HOSTILE], [LoadingExample(HOSTILE, HOSTILE, HOSTILE)], [HOSTILE])
    proof = {"status": "not possible", "reason": HOSTILE}
    text = render_card(
        HOSTILE,
        facts_of_run(hostile_manifest(run), HOSTILE),
        proof,
        card,
        base_license="mit\nx: y",
        must_be_passed=HOSTILE,
    )
    matter = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert matter.keys() == {"library_name", "pipeline_tag", "datasets", "tags"} and matter["datasets"] == ["owner/set"]
    assert "\u202e" not in text
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text.split("\n---\n", 1)[1])
    assert "<script" not in page and "<img" not in page and "<a " not in page
    assert page.count("<details>") == page.count("</details>") == 1
    assert page.index("</details>") > page.index("Recipe" if "Recipe" in page else "The recipe")


def test_what_an_export_told_of_its_form_stands_in_its_card_alone(run: Any) -> None:
    data = json.loads(json.dumps({key: run.manifest[key] for key in run.manifest if key != "artifacts"}))
    data["stages"].append({"name": "export gguf", "seconds": 1.0, "notices": ["llama.cpp does not end at '<e>' (7)"]})
    cards = [
        render_card(name, facts_of_run(RunManifest.from_json(data), name), PROVED, None) for name in ("gguf", "merged")
    ]
    assert ["does not end at" in card for card in cards] == [True, False]


def test_a_secret_is_in_no_card(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "quite-a-secret-value")
    data = json.loads(json.dumps({key: run.manifest[key] for key in run.manifest if key != "artifacts"}))
    data["recipe"]["adapter"]["hub_token"] = "another-secret-value"
    data["recipe"]["data"]["train"][0]["path"] = "https://me:pass-word@host/quite-a-secret-value.jsonl"
    text = render_card("x", facts_of_run(RunManifest.from_json(data), "x"), PROVED, None)
    assert "***" in text
    assert not any(secret in text for secret in ("quite-a-secret-value", "another-secret-value", "pass-word"))


def test_a_base_of_the_hub_is_named_as_the_hub_does(run: Any) -> None:
    data = json.loads(json.dumps({key: run.manifest[key] for key in run.manifest if key != "artifacts"}))
    data["model"]["reference"] = "hub:owner/base"
    data["providers"]["quantizer"]["name"] = "nf4"
    text = render_card("x", facts_of_run(RunManifest.from_json(data), "x"), PROVED, ExportCard("peft", "adapter"))
    matter = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert matter["base_model"] == "owner/base" and matter["base_model_relation"] == "adapter"
    assert "as nf4 stores them" in text
    assert hub_id("/a/b") is hub_id("package:a/b.gguf") is hub_id("a") is hub_id("x/y/z") is None


def test_an_adapter_that_is_exported_without_training_has_a_card(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = CliRunner().invoke(export.command, [str(run.exports["peft"]), "--to", "merged", "--out", str(tmp_path)])
    assert made.exit_code == 0, made.output
    folder = tmp_path / "exports" / "merged"
    matter, text = card_of(folder)
    assert matter["library_name"] == "transformers" and "lora" in matter["tags"] and matter["license"] == "apache-2.0"
    source = sha256_of(run.exports["peft"] / "adapter_model.safetensors")
    assert "## The adapter\n\n`peft`\n" in text and source in text and "lora, 14 layers." in text
    assert "logits within" in text and "## Training" not in text and "## Figures" not in text and "recipe" not in text
    assert str(run.folder) not in text and str(Path(run.manifest["model"]["reference"]).parent) not in text
    assert check_files(folder) == ["graftkit.json"]
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(python_of(folder, "none"), {})
    assert capsys.readouterr().out.rstrip("\n") == "".join(reload(str(folder)).stream("Hello")).rstrip("\n")


def test_names_of_an_adapter_become_no_markup_either() -> None:
    source = AdapterSource(path=f"/{HOSTILE}", files={HOSTILE: "0"})
    facts = CardFacts(adapter=HOSTILE, adapter_from=source, shared=["x"], system=HOSTILE)
    text = render_card("x", facts, PROVED, None)
    assert '```json\n{"role": "system", "content": "a`b' in text
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text.split("\n---\n", 1)[1])
    assert "<script" not in page and "<img" not in page and "<a " not in page
