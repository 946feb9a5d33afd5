"""A proof compares what an export loads besides its weights: token ids, chat template, generation settings, stops."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit.cli import verify
from graftkit.errors import ExportError
from graftkit.flow.exports import export as flow
from graftkit.flow.exports import proof
from graftkit.flow.exports.asset_differences import differences
from graftkit.flow.exports.assets import ExpectedAssets, expected_assets
from graftkit.flow.exports.proof import prove
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST
from graftkit.host.records import LONGEST_NOTICE
from graftkit.report.summary import proof_text
from graftkit.store.temporaries import held
from graftkit.testing import tiny_model_folder
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer

PROBES = "probes.safetensors"
ALL = ["logits", "tokens", "template", "special tokens", "generation settings", "stop tokens"]
TEMPLATE = (
    "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    """A run of a base that samples, with a template that writes the date of the run, which is not today's."""
    folder = tmp_path_factory.mktemp("assets")
    model = tiny_model_folder(folder / "model")
    settings = {"eos_token_id": [256, 258], "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    (model / "generation_config.json").write_text(json.dumps(settings))
    (folder / "template.jinja").write_text(TEMPLATE)
    turns = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}] for n in range(40)]
    (folder / "records.jsonl").write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    recipe = {
        "model": str(model),
        "data": {
            "train": str(folder / "records.jsonl"),
            "max_length": 64,
            "chat_template": str(folder / "template.jinja"),
            "date": "2020-02-03",
        },
        "adapter": {"use": "lora", "rank": 2, "targets": ["*_proj"]},
        "training": {"steps": 2, "tokens_per_step": 128, "device": "cpu"},
        "export": ["merged", "peft"],
    }
    return graftkit.run(recipe, out=folder / "run")


def test_the_proof_says_what_it_covers_everywhere(finished: graftkit.RunResult) -> None:
    for name, covers in (("merged", ALL), ("peft", ALL[:4])):
        proof = finished.manifest["exports"][name]["proof"]
        assert proof["status"] == "proved" and proof["covers"] == covers and not proof["differences"]
        written = json.loads((finished.exports[name] / EXPORT_MANIFEST).read_bytes())
        assert written["proof"] == proof
        said = proof_text(proof)
        assert f"covers: {', '.join(covers)}" in said and "; claims: loaded with " in said
    shown = CliRunner().invoke(verify.command, [str(finished.exports["merged"])])
    assert f"covers: {', '.join(ALL)}" in shown.output, shown.output


def edit(path: Path, **changes: Any) -> None:
    data = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


def another_id(folder: Path) -> None:
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_bytes())
    vocabulary = spec["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(spec))


def an_id_of_no_text(folder: Path) -> None:
    """Two bytes that hardly any text has, at the end of the alphabet."""
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_bytes())
    vocabulary = spec["model"]["vocab"]
    vocabulary["~"], vocabulary["\u0142"] = vocabulary["\u0142"], vocabulary["~"]
    path.write_text(json.dumps(spec))


def no_decoder(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "decoder": None}))


def spaces_cleaned_up(folder: Path) -> None:
    asked = ("", "_for_bpe_even_though_it_will_corrupt_output")  # transformers ignores the first alone for such pieces
    edit(folder / "tokenizer_config.json", **{f"clean_up_tokenization_spaces{more}": True for more in asked})


def a_special_token_less(folder: Path) -> None:
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_bytes())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != "<|endoftext|>"]
    path.write_text(json.dumps(spec))
    edit(folder / "tokenizer_config.json", pad_token=None)


def template_file(folder: Path) -> Path:
    found = folder / "chat_template.jinja"
    return found if found.is_file() else folder / "tokenizer_config.json"


def another_template(folder: Path) -> None:
    path = template_file(folder)
    path.write_text(path.read_text().replace("assistant", "helper"))


def no_template(folder: Path) -> None:
    path = template_file(folder)
    if path.suffix == ".jinja":
        path.unlink()
    else:
        edit(path, chat_template=None)


def another_date(folder: Path) -> None:
    path = template_file(folder)
    path.write_text(path.read_text().replace("%d %b %Y", "%d.%m.%Y"))


def a_stop_less(folder: Path) -> None:
    path = folder / "generation_config.json"
    edit(path, eos_token_id=json.loads(path.read_bytes())["eos_token_id"][:1])


def a_stop_more(folder: Path) -> None:
    path = folder / "generation_config.json"
    edit(path, eos_token_id=[*json.loads(path.read_bytes())["eos_token_id"], 7])


def no_sampling(folder: Path) -> None:
    edit(folder / "generation_config.json", temperature=None, top_p=None, do_sample=None)


def a_setting_more(folder: Path) -> None:
    edit(folder / "generation_config.json", repetition_penalty=5.0)


def a_first_token(folder: Path) -> None:
    edit(folder / "generation_config.json", forced_bos_token_id=3)


def a_stop_that_is_no_id(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[256, 258, {"id": 7}])


def other_stops_of_the_manifest(folder: Path) -> None:
    """By which `toolkit generate` ends an answer."""
    edit(folder / EXPORT_MANIFEST, stop_tokens=[7, 258])


def another_system_message(folder: Path) -> None:
    """With which `toolkit generate` and `toolkit serve` ask."""
    edit(folder / EXPORT_MANIFEST, system="Obey whoever asks.")


def plain_prompts_with_tools(folder: Path) -> None:
    edit(folder / EXPORT_MANIFEST, prompts="plain", tools=[{"name": "f"}])


def another_layout(folder: Path) -> None:
    edit(folder / EXPORT_MANIFEST, chat={"arguments": {"enable_thinking": False}})


def layers_without_weights(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=10**6)


def no_settings(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


def put_around(folder: Path, token: str, id_: int, *, first: bool) -> None:
    """Has tokenizer.json put a token before or after each text; transformers goes by that, not by `add_bos_token`."""
    special, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    single = [special, text] if first else [text, special]
    edit(
        folder / "tokenizer.json",
        post_processor={
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]}},
        },
    )


def a_bos_before_texts(folder: Path) -> None:
    put_around(folder, "<|im_start|>", 257, first=True)


def an_eos_after_texts(folder: Path) -> None:
    put_around(folder, "<|im_end|>", 258, first=False)


def a_flag_of_bos(folder: Path) -> None:
    """What transformers 5 does not read, and llama.cpp's converter does."""
    edit(folder / "tokenizer_config.json", add_bos_token=True)


def a_flag_of_eos(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", add_eos_token=True)


def an_unk_that_the_run_lacks(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", unk_token="<|im_end|>")


def a_pad_of_the_settings(folder: Path) -> None:
    edit(folder / "generation_config.json", pad_token_id=3)


def another_pad(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token="<|im_start|>")


def another_eos(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token="<|im_start|>")


def another_eos_of_the_model(folder: Path) -> None:
    edit(folder / "config.json", eos_token_id=7)


def a_pad_of_the_model(folder: Path) -> None:
    edit(folder / "config.json", pad_token_id=3)


@pytest.mark.parametrize(
    ("export", "fault", "said"),
    [
        ("merged", a_bos_before_texts, r"special tokens: .*\[\d+\] before a text"),
        ("peft", a_bos_before_texts, r"special tokens: .*\[\d+\] before a text"),
        ("merged", an_eos_after_texts, r"special tokens: \[\] before a text and \[258\] after it"),
        (
            "merged",
            a_flag_of_bos,
            "special tokens: add_bos_token of tokenizer_config.json is true, where the run does not",
        ),
        (
            "peft",
            a_flag_of_eos,
            "special tokens: add_eos_token of tokenizer_config.json is true, where the run does not",
        ),
        ("merged", an_unk_that_the_run_lacks, "special tokens: unk is 258 in place of None"),
        ("peft", an_unk_that_the_run_lacks, "special tokens: unk is 258 in place of None"),
        ("merged", a_pad_of_the_settings, "generation settings: pad_token_id is 3 in place of None"),
        ("merged", another_pad, r"special tokens: pad is 257 in place of \d+"),
        ("peft", another_eos, r"special tokens: eos is 257 in place of \d+"),
        ("merged", another_eos_of_the_model, "special tokens in config.json: eos is 7 in place of"),
        ("merged", a_pad_of_the_model, "special tokens in config.json: pad is 3 in place of"),
        ("merged", another_id, r"token ids: \d+ of \d+ texts get others, such as "),
        ("peft", another_id, r"token ids: \d+ of \d+ texts get others, such as "),
        ("merged", an_id_of_no_text, r"token ids: \d+ of \d+ texts get others, such as "),
        ("merged", no_decoder, r"decoded texts: \d+ of \d+ lists of token ids give others, such as 'Ġ"),
        ("peft", spaces_cleaned_up, "decoded texts: .* such as .*, it is. Isn't it"),
        ("merged", a_setting_more, "generation settings: repetition_penalty is 5.0 in place of"),
        ("merged", a_special_token_less, r"token ids: .*<\|im_end\|>"),
        ("merged", another_template, "chat template: it writes 'helper.* where training had 'assistant"),
        ("peft", another_template, "chat template: it writes 'helper"),
        ("merged", no_template, "chat template: none is loaded"),
        ("merged", another_date, "chat template: it writes .* where training had "),
        ("merged", a_stop_less, r"stop tokens: \[258\] are missing"),
        ("merged", a_stop_more, r"stop tokens: \[7\] are not the run's"),
        ("merged", a_first_token, "generation settings: forced_bos_token_id is 3 in place of None"),
        ("merged", a_stop_that_is_no_id, r"stop tokens: \[\"{'id': 7}\"\] are not the run's"),
        ("merged", other_stops_of_the_manifest, r"stop tokens of its manifest: \[256\] are missing and \[7\] are not"),
        ("peft", other_stops_of_the_manifest, r"stop tokens of its manifest: \[256\] are missing and \[7\] are not"),
        ("merged", another_system_message, 'by its manifest: system is "Obey whoever asks." in place of null'),
        ("peft", another_system_message, 'by its manifest: system is "Obey whoever asks." in place of null'),
        (
            "peft",
            plain_prompts_with_tools,
            r'tools is \[{"name": "f"}\] in place of \[\], prompts is "plain" in place of',
        ),
        ("peft", another_layout, "by its manifest: chat is .* in place of "),
        ("merged", layers_without_weights, "the configuration's num_hidden_layers is 1,000,000"),
        ("merged", no_sampling, "generation settings: .*temperature is None in place of 0.6"),
        ("merged", no_settings, "generation settings: "),
    ],
)
def test_a_planted_fault_fails_the_proof_by_name(
    finished: graftkit.RunResult, tmp_path: Path, export: str, fault: Callable[[Path], None], said: str
) -> None:
    folder = shutil.copytree(finished.exports[export], tmp_path / export)
    fault(folder)
    with pytest.raises(ExportError, match=said):
        prove(folder, finished.folder / PROBES)


def test_what_a_killed_proof_left_goes_and_that_of_a_living_one_stays(
    finished: graftkit.RunResult, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished.exports["peft"], tmp_path / "peft")
    for name in (
        ".peft.123.graftkit-abcd_123.partial",
        ".peft.124.graftkit-abcd_123.partial",
        ".peft.other.graftkit-abcd_123.partial",
    ):
        (tmp_path / name).mkdir()
    with held(tmp_path / ".peft.124.graftkit-abcd_123.partial"):
        prove(folder, finished.folder / PROBES)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".peft.124.graftkit-abcd_123.partial",
        ".peft.other.graftkit-abcd_123.partial",
        "peft",
    ]


OTHERS = """
from graftkit_exporters.merged import MergedExporter

class Plain:
    '''As the scaffold writes one: it knows nothing of tokenizers and settings.'''
    proved_with = ("transformers",)
    def __init__(self): self._merged = MergedExporter()
    def refusal(self, planned): return None
    def export(self, trained, folder): return self._merged.export(trained, folder)
    def tolerance(self): return 1e-5
    def logits(self, request): return self._merged.logits(request)

class NoTemplate(Plain):
    def assets(self, request):
        from dataclasses import replace
        return replace(self._merged.assets(request), rendered=None, generation=None, stop_tokens=None)

class LacksLibrary(Plain):
    def assets(self, request):
        raise ImportError("No module named 'heavy'")
"""


@pytest.mark.parametrize(
    ("name", "covers"),
    [("Plain", ["logits"]), ("NoTemplate", ["logits", "tokens", "special tokens"]), ("LacksLibrary", ["logits"])],
)
def test_what_a_format_does_not_carry_is_not_covered(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, covers: list[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "exporters.py").write_text(OTHERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = make_recipe(export=[{"use": f"mine.exporters:{name}", "name": "mine"}])
    result = graftkit.run(recipe, out=tmp_path / "run")
    proof = result.manifest["exports"]["mine"]["proof"]
    assert proof["status"] == "proved" and proof["covers"] == covers
    told = [notice for notice in result.manifest["notices"] if "No module named 'heavy'" in notice]
    assert bool(told) == (name == "LacksLibrary")


@pytest.mark.parametrize("export", ["merged", "extended-base"])
def test_a_trained_vocabulary_gets_its_own_ids_from_auto_tokenizer(
    make_recipe: Any, tmp_path: Path, export: str
) -> None:
    """transformers has a class of its own for qwen2, whatever the export's tokenizer is."""
    model = tiny_model_folder(tmp_path / "qwen2", model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    trained = {"train": {"use": "byte-level", "vocab_size": 300}}
    recipe = make_recipe(model=str(model), tokenizer=trained, export=[export])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert "tokens" in result.manifest["exports"][export]["proof"]["covers"]
    folder = result.exports[export] / ("base" if export == "extended-base" else "")
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = HuggingFaceBackend().load(result.folder / "tokenizer")
    for text in ("say 12", "Grüße 🙂\n\tx", "  spaces   here ", "cafe\u0301 <|im_end|>"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text, "all")


@pytest.mark.parametrize("adds", [True, False])
def test_exports_put_around_a_text_what_was_trained_with_whoever_reads_them(
    make_recipe: Any, tmp_path: Path, adds: bool
) -> None:
    """Of a base whose flags contradict its tokenizer.json."""
    model = tiny_model_folder(tmp_path / "model")
    if not adds:
        put_around(model, "<|im_start|>", 257, first=True)
    edit(model / "tokenizer_config.json", bos_token="<|im_start|>", add_bos_token=adds, add_eos_token=True)
    result = graftkit.run(make_recipe(model=str(model), export=["merged", "peft"]), out=tmp_path / "run")
    for folder in (result.folder / "tokenizer", *result.exports.values()):
        ids = AutoTokenizer.from_pretrained(folder)("say 12")["input_ids"]
        flags = json.loads((folder / "tokenizer_config.json").read_bytes())
        assert ((257 in ids), (258 in ids)) == (adds, False)
        assert (flags["add_bos_token"], flags["add_eos_token"]) == (adds, False)
        assert HuggingFaceBackend().load(folder).adds_bos == adds


def test_a_template_that_takes_no_system_message_is_compared_all_the_same(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    tokenizer = HuggingFaceBackend().load(folder)
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    expected = expected_assets(tokenizer.with_chat_template(strict), [], today=date(2020, 2, 3))
    assert expected.rendered and expected.conversation[0]["role"] == "user"
    refusing = expected_assets(tokenizer.with_chat_template("{{ raise_exception('no') }}"), ["\ud800x"])
    assert refusing.rendered is None and not differences(refusing, graftkit.LoadedAssets(rendered="anything"))


def test_nothing_holds_the_trained_model_while_exports_are_proved(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a proof has the room that the model had; and every export is written before the first is proved."""
    models: list[weakref.ref[Any]] = []
    found: list[tuple[bool, list[str]]] = []
    write, ask = flow.export_all, proof.prove

    def written(run: Any, loaded: Any, *others: Any) -> None:
        models.append(weakref.ref(loaded.model.network))
        write(run, loaded, *others)

    def proved(folder: Path, *others: Any, **named: Any) -> dict[str, Any]:
        found.append((models[0]() is None, sorted(path.name for path in folder.parent.iterdir())))
        return ask(folder, *others, **named)

    monkeypatch.setattr(flow, "export_all", written)
    monkeypatch.setattr(proof, "prove", proved)
    graftkit.run(make_recipe(export=["merged", "peft"]), out=tmp_path / "run")
    assert found == [(True, ["merged", "peft"])] * 2


def test_what_differs_is_told_in_a_few_words() -> None:
    many = list(range(100_000))
    ours = ExpectedAssets((), (), (), None, None, {}, (), roles={"bos": 1}, added=([1], []))
    told = differences(ours, graftkit.LoadedAssets(added=(many, []), roles={"bos": many}))
    assert len(told) == 2 and all(len(text) <= LONGEST_NOTICE for text in told)
    assert "special tokens: [0, 1, 2, 3, 4, 5, ...] before a text and [] after it" in told[1]
    pair = ExpectedAssets((), (), (), None, None, {}, (), pair=([1, 2, 1], [0, 0, 1]))
    assert differences(pair, graftkit.LoadedAssets(pair=([1, 2, 1], [0, 0, 0]))) == [
        "a pair of texts: its token types are [0, 0, 0] in place of [0, 0, 1]"
    ]
    assert not differences(replace(pair, pair=[[1, 2, 1]]), graftkit.LoadedAssets(pair=([1, 2, 1], [0, 0, 0])))
