"""Exports whose files and manifests somebody else wrote: they choose no code, and no tolerance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graftkit
import pytest
import torch
from graftkit import PluginHost, Probe, ProofRequest
from graftkit.articles import with_article
from graftkit.cli.verify import command as verify
from graftkit.errors import ExportError, FolderError, GraftkitError, PluginError
from graftkit.flow.answering.reload import reload
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.exports import proof, proof_process
from graftkit.flow.folders.export_manifest import MAX_TOLERANCE, checked_tolerance
from graftkit.flow.folders.refused_files import drop_foreign_code, refuse_bad_files, refuse_foreign_code
from graftkit.flow.memory.free_memory import free_memory, memory_of
from graftkit.flow.verify import check_files
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.kinds import KINDS, Kind
from graftkit.store.file_hashes import file_facts
from graftkit.testing import tiny_records
from safetensors.torch import load_file, save_file

PROBES = "probes.safetensors"
WRITES_A_FILE = "from pathlib import Path\nPath({ran!r}).write_text('it ran')\n"


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    folder = tmp_path_factory.mktemp("finished")
    return graftkit.run(recipe(tiny_model, folder, ["merged", "peft"]), out=folder / "run")


@pytest.fixture
def copied(finished: graftkit.RunResult, tmp_path: Path) -> Path:
    """The run, to change."""
    return shutil.copytree(finished.folder, tmp_path / "run")


def recipe(model: Path, folder: Path, exports: list[Any]) -> dict[str, Any]:
    records = folder / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in tiny_records("completion", 20)))
    training = {"steps": 4, "tokens_per_step": 128, "learning_rate": 3e-2, "device": "cpu"}
    return {"model": str(model), "data": {"train": str(records)}, "training": training, "export": exports}


def edit(path: Path, **changed: Any) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changed}))


def list_again(folder: Path) -> None:
    """Makes an export's manifest agree with its files, as whoever changed them would."""
    edit(folder / "graftkit.json", files=file_facts(folder, leave_out=frozenset({"graftkit.json"})))


def with_code(folder: Path, ran: Path) -> None:
    (folder / "code.py").write_text(WRITES_A_FILE.format(ran=str(ran)))
    names = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    edit(folder / "config.json", model_type="unheard-of", auto_map=names)
    list_again(folder)


def test_verify_runs_no_code_of_an_export_whatever_is_answered(copied: Path, tmp_path: Path) -> None:
    folder = copied / "exports" / "merged"
    with_code(folder, tmp_path / "ran")
    command = [sys.executable, "-m", "graftkit", "verify", str(folder)]
    done = subprocess.run(command, input="y\n" * 50, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "names code that would be run to load it ('auto_map')" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "ran").exists()
    with pytest.raises(ExportError, match="an export's own code is never run"):
        reload(str(folder))


def test_transformers_itself_is_told_to_trust_nothing(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftkit_exporters.merged import MergedExporter

    with_code(copied / "exports" / "merged", tmp_path / "ran")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    with pytest.raises(ValueError, match="trust_remote_code"):
        MergedExporter().logits(
            ProofRequest(copied / "exports" / "merged", [Probe((1, 2), (1,))], lambda: pytest.fail("no base"))
        )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json", "base/config.json"])
@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
def test_any_configuration_that_names_code_is_refused_and_never_written(tmp_path: Path, name: str, key: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"kept": 1, key: {"A": "code.A"}}))
    with pytest.raises(ExportError, match=f"names code .*'{key}'"):
        refuse_foreign_code(tmp_path)
    drop_foreign_code(tmp_path)
    refuse_foreign_code(tmp_path)
    assert json.loads(path.read_text()) == {"kept": 1}


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("config.json", {"text_config": {"vision": [{"auto_map": {"A": "code.A"}}]}}, "auto_map"),
        ("config.4.0.0.json", {"auto_map": {"A": "code.A"}}, "auto_map"),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "code"}}, "auto_mapping"),
        ("config.json", {"attn_implementation": "org/kernel"}, "attn_implementation"),
        ("config.json", {"text_config": {"_attn_implementation": {"": "org/kernel@v1:f"}}}, "_attn_implementation"),
        ("config.json", {"experts_implementation": "org/kernel"}, "experts_implementation"),
    ],
)
def test_code_is_found_wherever_a_library_would_find_it(
    tmp_path: Path, name: str, content: dict[str, Any], key: str
) -> None:
    """In nested settings, in a configuration for certain versions, and as a hub's compiled kernels."""
    (tmp_path / name).write_text(json.dumps({"kept": 1, **content}))
    with pytest.raises(ExportError, match=f"names code .*'{key}'"):
        refuse_foreign_code(tmp_path)
    drop_foreign_code(tmp_path)
    refuse_foreign_code(tmp_path)
    left = (tmp_path / name).read_text()
    assert json.loads(left)["kept"] == 1 and f'"{key}"' not in left


def test_what_names_no_code_is_kept(tmp_path: Path) -> None:
    content = {"auto_map": [], "attn_implementation": "sdpa", "tokenizer_file": "tokenizer.json", "a_file": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
    refuse_foreign_code(tmp_path)
    refuse_bad_files(tmp_path)
    drop_foreign_code(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == content


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/x", "..\\\\x", "a/b.safetensors", 3])
def test_an_index_that_leaves_the_export_is_refused(copied: Path, name: Any) -> None:
    folder = copied / "exports" / "merged"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    list_again(folder)
    for ask in (lambda: proof.prove(folder, copied / PROBES), lambda: reload(str(folder))):
        with pytest.raises(ExportError, match="its weight_map names .* which is no file's name"):
            ask()


@pytest.mark.parametrize("name", ["/etc/tokenizer.json", "../../tokenizer.json", "C:\\\\x.json"])
def test_a_tokenizer_that_lies_elsewhere_is_refused_and_never_handed_on(copied: Path, name: str) -> None:
    folder = copied / "exports" / "merged"
    edit(folder / "tokenizer_config.json", tokenizer_file=name)
    list_again(folder)
    for ask in (lambda: proof.prove(folder, copied / PROBES), lambda: reload(str(folder))):
        with pytest.raises(ExportError, match="its 'tokenizer_file' leads out of the folder"):
            ask()
    drop_foreign_code(folder)
    refuse_bad_files(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.5.0.json"])
def test_a_tokenizer_is_judged_before_transformers_runs_it(copied: Path, name: str) -> None:
    """transformers takes the second in place of the first where the configuration lists it."""
    folder = copied / "exports" / "merged"
    spec = json.loads((folder / "tokenizer.json").read_text())
    text = {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [text] * 2000, "pair": [], "special_tokens": {}}
    (folder / name).write_text(json.dumps({**spec, "post_processor": template}))
    edit(folder / "tokenizer_config.json", fast_tokenizer_files=[name])
    list_again(folder)
    with pytest.raises(ExportError, match=r"the post_processor of tokenizer.json puts over 1,000 tokens"):
        proof.prove(folder, copied / PROBES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX has named pipes")
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(copied: Path) -> None:
    folder = copied / "exports" / "merged"
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    for ask in (lambda: verify.main([str(folder)], standalone_mode=False), lambda: reload(str(folder))):
        with pytest.raises(GraftkitError, match="no regular file"):
            ask()


@pytest.mark.parametrize("name", ["model.safetensors", "adapter.safetensors", "probes.safetensors"])
def test_a_header_beyond_the_cap_is_read_by_no_library(copied: Path, name: str) -> None:
    folder = copied / "exports" / "merged"
    places = {"adapter.safetensors": copied / "adapter", "probes.safetensors": copied}
    path = places.get(name, folder) / name
    path.write_bytes((90 << 20).to_bytes(8, "little") + path.read_bytes()[8:])
    list_again(folder)
    with pytest.raises(ExportError, match="its header claims 94,371,840 bytes"):
        if name == "adapter.safetensors":
            manifest = json.loads((copied / "manifest.json").read_text())
            edit(copied / "manifest.json", artifacts={**manifest["artifacts"], **file_facts(copied)})
            reload(str(copied))
        else:
            proof.prove(folder, copied / PROBES)


@pytest.mark.parametrize("place", ["", "exports/peft"])
def test_generate_asks_no_network_for_what_a_manifest_names(
    copied: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def fetched(*arguments: Any, **named: Any) -> str:
        asked.append(named["local_files_only"])
        raise OSError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    name = "graftkit.json" if place else "manifest.json"
    source = copied / place
    if place:  # in the run, whose manifest lists graftkit.json, the change would be told
        source = source.rename(copied / "alone")
    manifest = json.loads((source / name).read_text())
    edit(source / name, model={**manifest["model"], "reference": "hub:org/name"})
    with pytest.raises(GraftkitError, match="nothing is fetched because a file names it"):
        reload(str(source))
    assert asked == [True]
    with pytest.raises(GraftkitError):
        reload("hub:org/name")
    assert asked == [True, False], "what the user names is fetched"


def test_a_runs_manifest_names_no_other_attribute_of_torch(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["recipe"]["training"]["dtype"] = "load"
    edit(copied / "manifest.json", recipe=manifest["recipe"])
    with pytest.raises(FolderError, match="incomplete or damaged"):
        reload(str(copied))


def test_generate_loads_nothing_that_lies_beside_what_is_listed(copied: Path) -> None:
    folder = copied / "exports" / "merged"
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(FolderError, match=r"chat_template.jinja is none of the export's"):
        reload(str(folder))


def test_an_export_that_was_published_may_be_verified_and_loaded(copied: Path) -> None:
    """Its card is edited by then; a licence, and what git and a hub's client keep, lie beside it."""
    folder = copied / "exports" / "merged"
    (folder / "README.md").write_text("My model.")
    (folder / "LICENSE").write_text("MIT")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / ".cache/huggingface").mkdir(parents=True)
    (folder / ".cache/huggingface/config.json.metadata").write_text("1")
    reload(str(folder))
    assert check_files(folder) == ["graftkit.json", "the run's manifest.json"]


@pytest.mark.parametrize("name", ["merged", "peft"])
def test_nothing_is_said_of_a_proof_where_an_export_says_nothing(
    name: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A merged export without graftkit.json is a model like others; in its run its absence is a change."""
    (copied / "exports" / name / "graftkit.json").unlink()
    alone = shutil.copytree(copied / "exports" / name, tmp_path / name)
    with pytest.raises(FolderError, match=r"graftkit\.json is missing"):
        reload(str(copied / "exports" / name))
    for folder in (alone, copied / "exports" / name):
        with pytest.raises(FolderError, match=r"no export of graftkit's: it has no graftkit\.json"):
            verify.callback(str(folder), (), False)  # type: ignore[misc]
    if name == "extended-base":
        with pytest.raises(FolderError, match="graftkit did not write this base with an adapter beside it"):
            reload(str(alone))
    else:
        assert list(reload(str(alone)).stream("hi", max_new_tokens=2))
    assert "proved" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "changed",
    [
        {"layer_replication": [[0, 2]] * 3000},
        {"r": 10**7},
        {"target_modules": [f"layer{n}" for n in range(100_000)]},
        {"rank_pattern": {"q_proj": 10**7}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_adapter_that_asks_for_far_more_than_it_holds_is_refused_soon(changed: dict[str, Any], copied: Path) -> None:
    folder = copied / "exports" / "peft"
    edit(folder / "adapter_config.json", **changed)
    list_again(folder)
    (copied / "manifest.json").unlink()  # which lists the file as it was
    start = time.monotonic()
    with pytest.raises(ExportError, match=rf"{next(iter(changed))}' (asks for|has peft build)"):
        verify.callback(str(folder), (), False)  # type: ignore[misc]
    assert time.monotonic() - start < 60, "of which most are a process's start"


@pytest.mark.parametrize("linked", [False, True])
def test_generate_asks_the_run_around_an_export_too(copied: Path, tmp_path: Path, linked: bool) -> None:
    """Whoever changes an export can make its own list agree, or take it away: the run has another one."""
    folder = copied / "exports" / "merged"
    if linked:
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    edit(folder / "generation_config.json", temperature=0.5)
    list_again(folder)
    with pytest.raises(FolderError, match="the file (generation_config|graftkit).json is changed"):
        reload(str(folder))
    (folder / "graftkit.json").unlink()
    with pytest.raises(FolderError, match="the file .* is (changed|missing)"):
        reload(str(folder))


@pytest.mark.parametrize("name", ["tokenizer/chat_template.jinja", "tokenizer/added_tokens.json", "vocabulary.json"])
def test_generate_loads_nothing_that_was_added_to_a_run(copied: Path, name: str) -> None:
    (copied / name).write_text("{}")
    with pytest.raises(FolderError, match=f"the file {name} is none of the run's"):
        reload(str(copied))


def test_a_link_to_a_folder_in_an_export_is_refused(copied: Path, tmp_path: Path) -> None:
    """What it leads to is in no list of files, and was not looked at for code."""
    folder = copied / "exports" / "merged"
    (tmp_path / "elsewhere").mkdir()
    (folder / "base").symlink_to(tmp_path / "elsewhere")
    for ask in (
        lambda: verify.main([str(folder)], standalone_mode=False),
        lambda: reload(str(folder)),
        lambda: proof.prove(folder, copied / PROBES),
    ):
        with pytest.raises(ExportError, match="this is a link to a folder"):
            ask()


def test_verify_proves_with_no_other_probes_than_the_runs_own(copied: Path) -> None:
    with (copied / PROBES).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x01")
    with pytest.raises(FolderError, match=r"the file probes\.safetensors is changed"):
        verify.main([str(copied / "exports" / "merged")], standalone_mode=False)


def test_a_failed_proof_says_what_the_library_said(copied: Path) -> None:
    """The note that names the plugin stood on the last line, which alone was told."""
    folder = copied / "exports" / "merged"
    edit(folder / "config.json", model_type="unheard-of")
    list_again(folder)
    with pytest.raises(
        ExportError, match=r"can't be loaded again: \w+: [\s\S]*plugin 'exporters' .* raised it"
    ) as caught:
        proof.prove(folder, copied / PROBES)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["config.json", "graftkit.json", "new.txt"])
def test_verify_compares_with_the_runs_own_manifest(copied: Path, name: str) -> None:
    """Whoever changes an export can list its files again; the run's manifest lies elsewhere."""
    folder = copied / "exports" / "merged"
    if name == "new.txt":
        (folder / name).write_text("new")
    else:
        edit(folder / name, another="key")
    list_again(folder)
    with pytest.raises(ExportError, match=r"(changed|new) since it was exported, says the run's manifest.json"):
        verify.main([str(folder)], standalone_mode=False)


def test_verify_says_what_hashes_were_compared_with(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied / "exports" / "merged"
    (copied.parent / "link").symlink_to(folder)
    verify.main([str(copied.parent / "link")], standalone_mode=False)
    assert "files are those that graftkit.json and the run's manifest.json list\n" in capsys.readouterr().out
    (copied / "manifest.json").unlink()
    verify.main([str(folder), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["hashes_of"] == ["graftkit.json"]
    verify.main([str(folder)], standalone_mode=False)
    assert "note: whoever changed files may have changed that list" in capsys.readouterr().out


def test_a_base_models_own_code_is_not_handed_on(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("config.json", "tokenizer_config.json"):
        edit(model / name, auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"})
    result = graftkit.run(recipe(model, tmp_path, ["merged"]), out=tmp_path / "run")
    assert result.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    told = [notice for notice in result.manifest["notices"] if "which is never run" in notice]
    assert len(told) == 1 and "code of its own (code.Model), which is never run: transformers' own for llama" in told[0]
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((result.exports["merged"] / name).read_text())


@pytest.mark.parametrize(
    "share", [1e30, MAX_TOLERANCE * 1.01, -1e-9, float("nan"), float("inf"), 10**400, "1", True, None]
)
def test_a_tolerance_above_cores_bound_is_refused_naming_the_exporter(share: Any) -> None:
    with pytest.raises(ExportError, match="the exporter 'mine' claims a tolerance of"):
        checked_tolerance(share, "mine")


def test_verify_does_not_believe_a_tolerance(copied: Path) -> None:
    folder = copied / "exports" / "merged"
    weights = folder / "model.safetensors"
    save_file({k: torch.zeros_like(t) for k, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    list_again(folder)
    edit(folder / "graftkit.json", tolerance=1e30)
    with pytest.raises(ExportError, match=r"'merged' claims a tolerance of 1e\+30; from 0 to 0\.1"):
        proof.prove(folder, copied / PROBES)


def test_the_difference_is_told_beside_what_is_allowed(finished: graftkit.RunResult) -> None:
    from graftkit.report.summary import proof_text

    text = proof_text(finished.manifest["exports"]["merged"]["proof"])
    assert text.startswith("proved: ") and " of 1.0e-04 allowed" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tolerance": None}, "'tolerance' is null"),
        ({"exporter": "merged"}, "'exporter' is \"merged\""),
        ({"exporter": {}}, "no installed plugin offers None"),
        ({"dtype": "nn"}, "'dtype' is \"nn\""),
        ({"model": {}}, "'model' has no reference"),
    ],
)
def test_a_damaged_manifest_is_told_in_words(copied: Path, change: dict[str, Any], said: str) -> None:
    folder = copied / "exports" / "merged"
    edit(folder / "graftkit.json", **change)
    with pytest.raises(GraftkitError) as caught:
        proof.prove(folder, copied / PROBES)
    assert said in str(caught.value) and "Error" not in str(caught.value)


def facts_of(registered: RegisteredProvider) -> dict[str, Any]:
    return {"target": registered.provider.target, "config_class": registered.provider.config, "config": {}}


@pytest.mark.parametrize(
    ("targets", "pattern", "said"),
    [
        (["model.layers.0.self_attn.q_proj"] * 300_000, "x", "'targets' names a layer twice"),
        ([f"layer {n}" for n in range(300_000)], "x", "no tensor of the layer 'layer 0'"),
        (["model.layers.0.self_attn.q_proj"], ".*" * 12 + "Z", "could take forever"),
    ],
)
def test_generate_judges_an_adapters_layers_and_patterns_soon(
    copied: Path, targets: list[str], pattern: str, said: str
) -> None:
    adapter = json.loads((copied / "exports/peft/graftkit.json").read_text())["adapter"]
    adapter["config"]["rank_pattern"] = {pattern: 2}
    (copied / "manifest.json").unlink()
    edit(copied / "exports/peft/graftkit.json", targets=targets, adapter=adapter)
    start = time.process_time()
    with pytest.raises(GraftkitError, match=said):
        reload(str(copied / "exports/peft"))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_provider_is_made_only_as_the_kind_that_it_is_installed_as(kind: Kind) -> None:
    """Whatever a manifest names: every installed provider, asked for as each other kind."""
    host = PluginHost()
    make = InstalledProviders(host).make
    for registered in host.registry.providers():
        if registered.kind != kind:
            with pytest.raises(PluginError, match=f"names .* as its {kind}, which is {with_article(registered.kind)}$"):
                make(kind, facts_of(registered))


def test_an_export_whose_manifest_swaps_two_kinds_is_refused(copied: Path) -> None:
    folder = (copied / "exports" / "peft").rename(copied / "alone")  # where no run's manifest tells the change
    manifest = json.loads((folder / "graftkit.json").read_text())
    edit(folder / "graftkit.json", adapter=manifest["quantizer"])
    with pytest.raises(PluginError, match="as its adapter, which is a quantizer"):
        reload(str(folder))
    edit(copied / "manifest.json", providers={**manifest, "quantizer": manifest["tokenizer"]})
    with pytest.raises(PluginError, match="as its quantizer, which is a tokenizer"):
        reload(str(copied))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"files": 3}', '{"files": {"config.json": 3}}'])
def test_a_manifest_that_is_none_is_told_in_words(copied: Path, text: str) -> None:
    folder = copied / "exports" / "merged"
    (folder / "graftkit.json").write_text(text)
    for ask in (lambda: reload(str(folder)), lambda: verify.main([str(folder)], standalone_mode=False)):
        with pytest.raises((FolderError, ExportError)):
            ask()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("", "adapter/adapter.safetensors"),
        ("", "tokenizer/tokenizer.json"),
        ("exports/merged", "model.safetensors"),
        ("exports/merged", "tokenizer.json"),
        ("exports/peft", "adapter_model.safetensors"),
    ],
)
def test_generate_loads_no_file_that_differs_from_its_manifest(copied: Path, place: str, name: str) -> None:
    folder = copied / place
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(FolderError, match=f"the file {name} is changed"):
        reload(str(folder))
    (folder / name).unlink()
    with pytest.raises(FolderError, match=f"the file {name} is missing"):
        reload(str(folder))


LOOPS = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("merged", LOOPS),
        ("peft", "{% for i in range(100000000) %}{% endfor %}x"),
        ("peft", "{% if tools %}" + LOOPS + "{% endif %}x"),
    ],
)
def test_a_template_that_does_far_more_than_its_conversation_asks_for_is_not_run(
    copied: Path, name: str, source: str
) -> None:
    """Neither transformers nor llama.cpp counts what a template does."""
    folder = copied / "exports" / name
    edit(folder / "tokenizer_config.json", chat_template=source)
    start = time.monotonic()
    with pytest.raises(ExportError, match="the chat template (does far more work|counts through over)"):
        proof.prove(folder, copied / PROBES)
    assert time.monotonic() - start < 30


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> list[Any]:
    """Puts a program in the place of the one that loads an export; returns the processes that were started."""
    started: list[Any] = []
    real = subprocess.Popen

    def start(command: list[str], **named: Any) -> Any:
        started.append(real([sys.executable, "-c", code], **named))
        return started[-1]

    monkeypatch.setattr(proof_process, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))
    return started


@pytest.mark.fresh_children
def test_a_proof_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = child(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(proof_process, "_time_limit", lambda folder: 1.0)
    start = time.monotonic()
    with pytest.raises(ExportError, match="its proof took longer than .* and was stopped"):
        proof.prove(tmp_path, tmp_path / PROBES)
    assert time.monotonic() - start < 60 and started[0].poll() is not None


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="the system does not tell how much memory is free")
def test_a_proof_of_a_strangers_export_that_takes_the_memory_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = child(monkeypatch, "import time; taken = b'x' * (300 << 20); time.sleep(600)")
    monkeypatch.setattr(proof_process, "free_memory", lambda: 200 << 20)
    start = time.monotonic()
    with pytest.raises(ExportError, match=r"its proof took more than 0\.2 GB of memory"):
        proof.prove(tmp_path, tmp_path / PROBES)
    assert time.monotonic() - start < 60 and started[0].poll() is not None


@pytest.mark.parametrize("free", [None, 200 << 20])
def test_other_proofs_have_no_limit_of_memory(
    free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose export this run has written, and all where the system doesn't tell what is free."""
    done = "import time; taken = b'x' * (300 << 20); time.sleep(1); print('{\"status\": \"proved\"}')"
    child(monkeypatch, done)
    monkeypatch.setattr(proof_process, "free_memory", lambda: free)
    assert proof.prove(tmp_path, tmp_path / PROBES, trusted=free is not None)["status"] == "proved"


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="the system does not tell how much memory is free")
def test_memory_is_measured() -> None:
    free, taken = free_memory(), memory_of(os.getpid())
    assert free is not None and free > 1 << 20
    assert taken is not None and 1 << 20 < taken < 1 << 40
    assert memory_of(1 << 30) is None


def test_a_proof_has_ten_minutes_at_least(tmp_path: Path) -> None:
    assert proof_process._time_limit(tmp_path) >= 600


@pytest.mark.fresh_children
@pytest.mark.parametrize("trusted", [False, True])
def test_what_is_verified_asks_neither_its_user_nor_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    code = (
        "import json, os, sys; said = [sys.stdin.read(), os.environ.get('HF_HUB_OFFLINE'), "
        "os.environ.get('TRANSFORMERS_OFFLINE')]; print(json.dumps({'status': 'not possible', 'reason': said}))"
    )
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    child(monkeypatch, code)
    said = proof.prove(tmp_path, tmp_path / PROBES, trusted=trusted)["reason"]
    assert said == ["", "1", "1"]


KILLED = """
import json, sys
from pathlib import Path
from graftkit.flow.exports.proof import prove
folder = Path(sys.argv[1])
prove(folder, folder / "probes.safetensors", trusted=True)
"""
WAITS = """
import os, time
class Waits:
    def __init__(self):
        with open({path!r}, "w") as file:
            file.write(f"{os.getpid()} {os.environ.get('GGML_NO_BACKTRACE')}")
        os.rename({path!r}, {path!r} + ".done")
        time.sleep(600)
"""


@pytest.mark.fresh_children
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the signal at the parent's end is Linux's")
def test_a_proof_ends_with_the_process_that_asked_for_it_even_when_that_is_killed(tmp_path: Path) -> None:
    """Nobody would stop it then: neither its time nor its memory would be watched."""
    (tmp_path / "waits.py").write_text(WAITS.replace("{path!r}", repr(str(tmp_path / "pid"))))
    facts: dict[str, Any] = {key: {"target": "waits:Waits"} for key in ("exporter", "model_source", "quantizer")}
    manifest = {**facts, "model": {"reference": "x"}, "dtype": "float32", "tolerance": 0.0}
    (tmp_path / "graftkit.json").write_text(json.dumps(manifest))
    environment = _with_path()
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    asking = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    written, end = tmp_path / "pid.done", time.monotonic() + 60
    while not written.exists() and time.monotonic() < end and asking.poll() is None:
        time.sleep(0.05)
    proof, no_debugger = written.read_text().split()
    asking.kill()
    asking.wait()
    while _runs(int(proof)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(int(proof)), "the proof is still running"
    assert no_debugger == "1", "llama.cpp would start a debugger where it aborts"


STARTS = """
import subprocess, sys
proof = [sys.executable, "-c", "import time; time.sleep(1)\\n" + sys.argv[1], "x", "y", str(__import__("os").getpid())]
print(subprocess.Popen(proof, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)
"""


@pytest.mark.fresh_children
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="how a process runs is read there")
def test_a_proof_does_not_begin_where_the_process_that_asked_for_it_has_ended(tmp_path: Path) -> None:
    begins = (
        "import graftkit.flow.exports.prove as prove\n"
        f"prove.answer = lambda *_, **__: __import__('time').sleep(600) or open({str(tmp_path / 'ran')!r}, 'w')\n"
        "prove.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", STARTS, begins], capture_output=True, text=True, check=True, env=_with_path()
    )
    end = time.monotonic() + 60
    while _runs(int(done.stdout)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(int(done.stdout)), "the proof is still running"


def _with_path() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({path!r}, "w").write(str(child.pid))
os.mkdir(f"{folder}/.export.{os.getpid()}.graftkit-x.partial")
open("{ready}", "w").close()
time.sleep(600)
"""


@pytest.mark.fresh_children
@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's")
def test_a_proof_that_is_stopped_leaves_no_process_of_its_own_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loading program started ends with it."""
    folder = tmp_path / "exports" / "export"
    folder.mkdir(parents=True)
    code = ORPHAN.replace("{path!r}", repr(str(tmp_path / "pid"))).replace("{folder}", str(folder.parent))
    code = code.replace("{ready}", str(tmp_path / "ready"))
    child(monkeypatch, code)
    ready = tmp_path / "ready"  # only then the time is over, however slowly the machine starts processes
    monkeypatch.setattr(proof_process, "time", SimpleNamespace(monotonic=lambda: 1e9 * ready.exists()))
    with pytest.raises(ExportError, match="was stopped"):
        proof.prove(folder, tmp_path / PROBES)
    assert [path.name for path in folder.parent.iterdir()] == ["export"]
    started = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 20
    while _runs(started) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(started), "a process that the proof started is still running"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # one that has ended and that nobody has waited for is there, too
    return not state.is_file() or state.read_text().rpartition(")")[2].split()[0] != "Z"


BAD = """
import shutil
from dataclasses import replace
from graftkit_exporters.merged import MergedExporter

class Wide(MergedExporter):
    def tolerance(self):
        return 1e9

class Hides(MergedExporter):
    def export(self, trained, folder):
        return {**super().export(trained, folder), "tolerance": 0.05}

class ReadsNothing(MergedExporter):
    def export(self, trained, folder):
        facts = super().export(trained, folder)
        shutil.copytree(folder, folder.parent / "elsewhere")
        return facts

    def logits(self, request):
        return super().logits(replace(request, folder=request.folder.parent / "elsewhere"))
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Wide", r"the exporter '.*Wide.*' claims a tolerance of 1000000000\.0"),
        ("Hides", r"the exporter '.*Hides.*' returns tolerance as a fact of its own"),
        ("ReadsNothing", "computed the logits without reading its export"),
    ],
)
def test_no_exporter_has_itself_proved(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "exporters.py").write_text(BAD)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ExportError, match=said):
        exports = [{"use": f"bad.exporters:{name}", "name": "bad"}]
        graftkit.run(recipe(tiny_model, tmp_path, exports), out=tmp_path / "run")
    assert not [path.name for path in (tmp_path / "run" / "exports").iterdir() if path.name.endswith(".partial")]
