"""Runs that learn vectors of texts: what they learn, keep, export and refuse."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from asgi_client import ask
from click.testing import CliRunner
from encoder_models import encoder_folder, encoder_recipe
from gguf_models import write_llama
from graftkit.cli.generate import command as generate
from graftkit.cli.init import command as init
from graftkit.cli.preview import command as preview
from graftkit.errors import DataError, ExportError, FolderError, ModelError, RecipeError, RequestError
from graftkit.exporting.sentence_folder import write_sentence_files
from graftkit.flow.answering.reload import AdapterBase, reload, reload_any
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.interfaces.samples import SimilarTexts
from graftkit.recipe.load import load_recipe
from graftkit.testing import tiny_model_folder
from graftkit_gguf.stored_types import StoredTypes
from made_records import similar_texts, written
from safetensors.torch import load_file

RECORDS = similar_texts(150)
ASKED = ["was the film", "great love, and long"]
GOOD, BAD = ("great", "lovely", "long"), ("awful", "poor", "short")
PAIRS = [
    {"sentence1": f"{a} {a}", "sentence2": f"{b} {b} {n % 9}", "score": 4 * ((a in GOOD) == (b in GOOD)) + n % 3 / 9}
    for n, (a, b) in enumerate([(a, b) for a in (*GOOD, *BAD) for b in (*GOOD, *BAD) if a != b] * 6)
]

recipe_of = partial(encoder_recipe, objective="embedding", step={"tokens_per_step": 1024, "microbatch_tokens": 256})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def bert(folder: Path) -> Path:
    return encoder_folder(folder / "bert", "bert")


@pytest.fixture(scope="module")
def result(bert: Path, folder: Path) -> Any:
    """Returns a run of an encoder, with both exports."""
    records = written(folder / "records.jsonl", RECORDS)
    objective = {"use": "embedding", "query_prompt": "find ", "dimensions": [8]}
    return graftkit.run(recipe_of(bert, records, ["peft", "merged"], objective=objective), out=folder / "run")


def vectors_of(place: Path, texts: Sequence[str]) -> torch.Tensor:
    model = reload_any(str(place))
    assert isinstance(model, HeadModel)
    return torch.stack([model.embed(text)[0] for text in texts])


def test_an_encoder_learns_vectors_and_its_exports_are_proved(result: Any, folder: Path) -> None:
    before, after = result.before, result.after
    assert after.holdout_loss < before.holdout_loss - 1 and after.bits_per_byte is None
    assert set(after.metrics) == {"accuracy", "mrr", "cosine"} and after.metrics["mrr"] > before.metrics["mrr"] + 0.2
    said = {"kind": "embedding", "labels": [], "pad": 0, "pooled_by": "mean", "prompts": {"query": "find "}}
    assert result.manifest["head"] == said
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    config = json.loads((result.exports["peft"] / "adapter_config.json").read_text())
    assert config["task_type"] == "FEATURE_EXTRACTION"
    merged = json.loads((result.exports["merged"] / "config.json").read_text())
    assert merged["architectures"] == ["BertModel"] and merged["embedding_pooling"] == "mean"
    card = (result.exports["merged"] / "README.md").read_text()
    assert 'library_name: "sentence-transformers"' in card and 'pipeline_tag: "sentence-similarity"' in card
    assert "model.encode(\"Hello\", prompt_name='query')" in card and "tokenizer('find Hello', return" in card
    measured = graftkit.evaluate(
        [str(result.folder), str(result.exports["merged"])], records=str(folder / "records.jsonl")
    )
    assert measured[0].measured.metrics == pytest.approx(measured[1].measured.metrics, abs=1e-5)
    alone = graftkit.evaluate(str(result.exports["merged"]), records=str(folder / "records.jsonl"))
    assert alone[0].measured.metrics == pytest.approx(measured[0].measured.metrics, abs=1e-5), "by its own prompts"


def test_a_recipe_says_how_vectors_are_measured(result: Any, bert: Path, folder: Path) -> None:
    """And the model what the recipe says nothing of."""
    records, merged = str(folder / "records.jsonl"), str(result.exports["merged"])

    def by(**objective: Any) -> Mapping[str, float]:
        recipe = recipe_of(bert, Path(records), objective={"use": "embedding", **objective})
        found: Mapping[str, float] = graftkit.evaluate(merged, recipe=recipe, records=records)[0].measured.metrics
        return found

    of_base = graftkit.evaluate([str(result.folder), str(bert)])[1].measured
    assert of_base.metrics == pytest.approx(result.before.metrics, abs=1e-6), "whose head for masked tokens is left out"
    assert of_base.holdout_loss == pytest.approx(result.before.holdout_loss, abs=1e-5)
    own = graftkit.evaluate(merged, records=records)[0].measured.metrics
    assert by() == by(pooling="mean") == pytest.approx(own, abs=1e-6)
    assert by(pooling="cls")["cosine"] != pytest.approx(own["cosine"], abs=1e-4)
    assert by(query_prompt="")["cosine"] != pytest.approx(own["cosine"], abs=1e-4)
    shutil.copytree(merged, folder / "elsewhere")
    [by_pairs] = graftkit.evaluate(str(folder / "elsewhere"), records=PAIRS)
    assert {*by_pairs.measured.metrics} == {"cosine", "spearman"}, "as the records are"


def test_sentence_transformers_computes_the_same(result: Any) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(result.exports["merged"]), device="cpu", local_files_only=True)
    expected = torch.from_numpy(theirs.encode(ASKED))
    assert theirs.prompts["query"] == "find " and theirs.similarity_fn_name == "cosine"
    asked = torch.from_numpy(theirs.encode(ASKED, prompt_name="query"))
    for place in (result.folder, *result.exports.values()):
        assert torch.allclose(vectors_of(place, ASKED), expected, atol=1e-5)
        assert torch.allclose(vectors_of(place, [f"find {text}" for text in ASKED]), asked, atol=1e-5)
        with pytest.raises((FolderError, ModelError), match="gives sequences vectors.*writes? .*answers"):
            reload(str(place))


def test_an_export_that_holds_no_vectors_is_refused_by_its_name(result: Any) -> None:
    with pytest.raises(RecipeError, match="the objective embedding trains a model with another head") as refused:
        graftkit.export(result.folder, "gguf-lora")
    assert str(refused.value).startswith("--to: the export 'gguf-lora' can't be written"), refused.value


def test_a_proof_is_of_what_sentence_transformers_files_say(result: Any, tmp_path: Path) -> None:
    from graftkit.flow.exports.probes import Probes, compare
    from graftkit.interfaces.exporter import ProofRequest
    from graftkit_exporters.merged import MergedExporter

    def difference() -> float:
        found = MergedExporter().logits(ProofRequest(export, probes.requested, base=lambda: torch.nn.Identity()))
        return compare(probes, found).largest

    export, probes = tmp_path / "merged", Probes.load(result.folder / "probes.safetensors")
    shutil.copytree(result.exports["merged"], export)
    assert difference() < 1e-5
    path = export / "1_Pooling" / "config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}))
    assert difference() > 0.1
    path.write_text(json.dumps(said | {"pooling_mode_cls_token": True}))
    with pytest.raises(ExportError, match="it does not ask for one way of pooling"):
        difference()


def test_an_adapter_that_goes_on_otherwise_is_told(result: Any, bert: Path, folder: Path) -> None:
    records, adapter = written(folder / "records.jsonl", RECORDS), {"from": str(result.exports["peft"])}

    def told(**objective: Any) -> bool:
        recipe = recipe_of(bert, records, adapter=adapter, objective={"use": "embedding", **objective})
        return any("vectors that are made otherwise" in notice for notice in graftkit.plan(recipe).notices)

    assert told() and told(query_prompt="find ", pooling="cls") and not told(query_prompt="find ")


def test_generate_says_the_vector_and_how_near_two_texts_are(result: Any) -> None:
    expected = vectors_of(result.folder, ASKED)
    said = CliRunner().invoke(generate, [str(result.folder), ASKED[0], "--json"])
    assert said.exit_code == 0, said.output
    [line] = said.stdout.splitlines()
    assert json.loads(line)["embedding"] == pytest.approx(expected[0].tolist(), abs=1e-6)
    pair = json.dumps({"text": ASKED[0], "text_pair": ASKED[1]})
    near = CliRunner().invoke(generate, [str(result.folder), pair])
    assert float(near.stdout) == pytest.approx((expected[0] @ expected[1]).item(), abs=1e-4)


def test_openais_clients_are_given_vectors(result: Any) -> None:
    from graftkit.serve.answers import AnswerQueue
    from graftkit.serve.app import create_app

    expected = vectors_of(result.folder, ASKED)
    queue = AnswerQueue(reload_any(str(result.exports["merged"])))
    app = create_app(queue, "vectors")
    told = ask(app, "POST", "/v1/embeddings", {"model": "vectors", "input": ASKED, "user": "me"})
    assert told.status == 200 and [one["index"] for one in told.json["data"]] == [0, 1]
    assert torch.allclose(torch.tensor([one["embedding"] for one in told.json["data"]]), expected, atol=1e-5)
    assert told.json["usage"]["prompt_tokens"] == told.json["usage"]["total_tokens"] > 4
    shorter = {"input": ASKED[0], "encoding_format": "base64", "dimensions": 8}
    [one] = ask(app, "POST", "/v1/embeddings", shorter).json["data"]
    first = torch.frombuffer(bytearray(base64.b64decode(one["embedding"])), dtype=torch.float32)
    assert torch.allclose(first, expected[0, :8] / expected[0, :8].norm(), atol=1e-5)
    for path, body, message in (
        ("embeddings", {"input": []}, "input is empty"),
        ("embeddings", {"input": ["a", 5]}, r"input\[1\] is no text"),
        ("embeddings", {"input": ["a", " "]}, r"input\[1\]: the text is empty"),
        ("embeddings", {"input": "a", "dimensions": 99}, "dimensions is 99; the model's vectors have 32"),
        ("embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format is float or base64"),
        ("embeddings", {"input": "a " * 200}, "the text has 202 tokens; the model's context is 130"),
        ("embeddings", {"input": "a", "truncate": True}, "truncate"),
        ("chat/completions", {"messages": []}, "gives texts vectors, and writes no answers: POST /v1/embeddings"),
    ):
        refused = ask(app, "POST", f"/v1/{path}", body)
        assert refused.status == 400 and re.search(message, refused.json["error"]["message"]), refused.data
    queue.stop()


def test_a_decoder_is_pooled_by_its_last_token(folder: Path) -> None:
    """Whether it was a language model or what `AutoModel` saves of one, whose output layer is the embedding."""
    from transformers import AutoModel, AutoTokenizer

    whole = tiny_model_folder(folder / "qwen2", model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    records = written(folder / "records.jsonl", RECORDS)
    other = {"use": "merged", "name": "other", "onto": "original"}
    recipe = recipe_of(whole, records, ["merged", other], quantizer="nf4", training={"steps": 3})
    done = graftkit.run(recipe, out=folder / "decoder")
    assert done.manifest["head"]["pooled_by"] == "lasttoken"
    assert {facts["proof"]["status"] for facts in done.manifest["exports"].values()} == {"proved"}
    assert (
        "likeliest" not in (done.folder / "report.html").read_text() + (done.exports["other"] / "README.md").read_text()
    )
    merged = done.exports["merged"]
    network, tokenizer = AutoModel.from_pretrained(merged), AutoTokenizer.from_pretrained(merged)
    with torch.no_grad():
        states = network(**tokenizer(ASKED[0], return_tensors="pt")).last_hidden_state[0, -1]
    assert torch.allclose(vectors_of(merged, ASKED[:1])[0], states / states.norm(), atol=1e-5)
    [of_base] = graftkit.evaluate(str(whole), recipe=recipe)
    assert of_base.measured.holdout_loss == pytest.approx(done.before.holdout_loss, rel=0.05), "but for the quantizer"
    body = folder / "body"
    AutoModel.from_pretrained(whole).save_pretrained(body)
    AutoTokenizer.from_pretrained(whole).save_pretrained(body)
    planned: Any = graftkit.plan(recipe_of(body, records, objective={"use": "embedding", "pooling": "mean"}))
    assert planned.head.pooled_by == "mean"
    texts = written(folder / "texts.jsonl", [{"text": f"some words {n}"} for n in range(20)])
    recipe = recipe_of(body, texts, ["peft", "merged"], objective="sft", training={"steps": 1})
    learnt = graftkit.run(recipe, out=folder / "language")
    assert "head" not in learnt.manifest or learnt.manifest["head"] is None
    assert {facts["proof"]["status"] for facts in learnt.manifest["exports"].values()} == {"proved"}
    with pytest.raises(
        RecipeError, match="trained with a language model's own head, and .*\n.*train a new adapter on the"
    ):
        graftkit.plan(recipe_of(body, records, adapter={"from": str(learnt.exports["peft"])}))
    [answer] = graftkit.generate(learnt.exports["merged"], "some", compare=True, max_new_tokens=2)
    assert answer.base is not None and answer.base.tokens
    taught = recipe_of(whole, texts, objective={"use": "distill", "teacher": str(body)}, training={"steps": 1})
    assert graftkit.run(taught, out=folder / "taught").after.holdout_loss > 0


@pytest.mark.parametrize("kind", ["llama", "xlm-roberta"])
def test_llama_cpp_is_given_a_model_that_makes_vectors(kind: str, folder: Path, tmp_path: Path) -> None:
    """Proved by its vectors, exact and quantized; read again as what it is, and trained further."""
    from graftkit.flow.exports.probes import Probes, compare
    from graftkit.interfaces.exporter import ProofRequest
    from graftkit_gguf.model_exporter import GgufExporter

    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    whole = tiny_model_folder(folder / "llama", **llama) if kind == "llama" else encoder_folder(tmp_path / kind, kind)
    records = written(folder / "records.jsonl", RECORDS)
    exports = [{"use": "gguf", "name": type_, "type": type_} for type_ in ("f32", "q4_0")]
    objective = {"use": "embedding", "pooling": "mean", "query_prompt": "find "}
    done = graftkit.run(recipe_of(whole, records, exports, objective=objective), out=tmp_path / "run")
    proofs = {name: facts["proof"] for name, facts in done.manifest["exports"].items()}
    assert {proof["status"] for proof in proofs.values()} == {"proved"}
    assert proofs["f32"]["covers"][:2] == ["vectors", "tokens"]
    rounding = proofs["q4_0"]["rounding"]
    assert 1e-5 < rounding["divergence"] < rounding["allowed"] and rounding["top1_agreement"] is None
    page, card = (path.read_text() for path in (done.folder / "report.html", done.exports["q4_0"] / "README.md"))
    assert "in the loss" not in page + card and "examples, " in card
    assert "the distance of vectors, 1 - cosine" in page and "likeliest" not in page and "vectors within" in card
    prompt = "llama.cpp and Ollama put no prompt before texts: put 'find ' before queries yourself"
    assert prompt in card and f"the export q4_0: {prompt}" in done.manifest["notices"]
    assert '"input": "find Hello"' in card
    beside = "the export q4_0: llama.cpp keeps white space before '<mask>'"
    assert any(text.startswith(beside) for text in done.manifest["notices"]) == (kind != "llama")
    assert (done.exports["q4_0"] / "Modelfile").read_text() == "FROM ./model.gguf\n"

    file = done.exports["f32"] / "model.gguf"
    expected = vectors_of(done.folder, ASKED)
    assert torch.allclose(vectors_of(file, ASKED), expected, atol=1e-5)
    again = recipe_of(file, records, training={"steps": 1})
    assert graftkit.run(again, out=tmp_path / "again").manifest["head"]["pooled_by"] == "mean"

    copied = tmp_path / "copied"
    shutil.copytree(done.exports["f32"], copied)
    data = (copied / "model.gguf").read_bytes()
    start = data.index(b".pooling_type") + len(b".pooling_type") + 4
    (copied / "model.gguf").write_bytes(data[:start] + b"\x03" + data[start + 1 :])
    probes = Probes.load(done.folder / "probes.safetensors")
    for place, off in ((done.exports["f32"], False), (copied, True)):
        found = GgufExporter().logits(ProofRequest(place, probes.requested, base=lambda: torch.nn.Identity()))
        assert (compare(probes, found, log_probabilities=True).largest > 0.1) == off


def test_an_architecture_that_computes_padding_with_a_text_is_told_of(bert: Path, tmp_path: Path) -> None:
    """FNet mixes all positions: sentence-transformers gives a text the vector that was learnt where it is alone."""
    from sentence_transformers import SentenceTransformer
    from transformers import FNetConfig, FNetModel

    size = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 130}
    rows = json.loads((bert / "config.json").read_text())["vocab_size"]
    base = tmp_path / "fnet"
    shutil.copytree(bert, base, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    FNetModel(FNetConfig(**size, vocab_size=rows, pad_token_id=0)).save_pretrained(base)
    records = written(tmp_path / "records.jsonl", RECORDS)
    done = graftkit.run(recipe_of(base, records, ["merged"], training={"steps": 1}), out=tmp_path / "run")
    assert sum("it computes padding with it" in notice for notice in done.manifest["notices"]) == 1
    theirs = SentenceTransformer(str(done.exports["merged"]), device="cpu", local_files_only=True)
    expected = vectors_of(done.folder, ASKED)
    assert torch.allclose(torch.from_numpy(theirs.encode(ASKED, batch_size=1)), expected, atol=1e-4)
    assert not torch.allclose(torch.from_numpy(theirs.encode(ASKED)), expected, atol=1e-2)


@pytest.mark.fresh_children
def test_a_plan_of_vectors_imports_no_torch(bert: Path, folder: Path) -> None:
    """Where the base model is called by its head, encoder or decoder."""
    whole = tiny_model_folder(folder / "llama", model_type="llama", architectures=["LlamaForCausalLM"])
    records = written(folder / "records.jsonl", RECORDS)
    recipes = [recipe_of(model, records) for model in (bert, whole)]
    code = (
        "import graftkit, json, sys; found = [graftkit.plan(each).head.pooled_by for each in json.loads(sys.argv[1])]; "
        "print(found, [name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(recipes)], capture_output=True, text=True)
    assert done.stdout.strip() == "['mean', 'lasttoken'] []", done.stdout + done.stderr


def test_a_body_without_a_pooler_is_exported_without_one(folder: Path) -> None:
    """An encoder for masked tokens has none, and no vector is made by it."""
    roberta = encoder_folder(folder / "roberta", "roberta")
    records = written(folder / "records.jsonl", RECORDS)
    done = graftkit.run(recipe_of(roberta, records, ["merged"], training={"steps": 2}), out=folder / "no pooler")
    assert done.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    assert not any("pooler" in name for name in load_file(done.exports["merged"] / "model.safetensors"))
    body = encoder_folder(folder / "with", "bert", whole=False)
    done = graftkit.run(recipe_of(body, records, ["merged"], training={"steps": 2}), out=folder / "pooler")
    tensors, base = load_file(done.exports["merged"] / "model.safetensors"), load_file(body / "model.safetensors")
    assert torch.equal(tensors["pooler.dense.weight"], base["pooler.dense.weight"])


def test_sentence_transformers_reads_a_width_that_is_called_otherwise(folder: Path) -> None:
    """DistilBERT's config.json has no `hidden_size`."""
    from sentence_transformers import SentenceTransformer

    base, records = encoder_folder(folder / "distilbert", "distilbert"), written(folder / "records.jsonl", RECORDS)
    merged = graftkit.run(recipe_of(base, records, ["merged"], training={"steps": 1}), out=folder / "dim")
    place = merged.exports["merged"]
    theirs = torch.from_numpy(SentenceTransformer(str(place), device="cpu", local_files_only=True).encode(ASKED))
    assert torch.allclose(vectors_of(place, ASKED), theirs, atol=1e-5)


def test_what_a_base_model_says_of_vectors_is_not_said_of_another_model(result: Any, folder: Path) -> None:
    """Neither of one with a head, nor prompts of one that was trained on without."""
    merged, records = result.exports["merged"], written(folder / "records.jsonl", RECORDS)
    texts = written(folder / "labels.jsonl", [{"text": f"some words {n}", "label": "ab"[n % 2]} for n in range(20)])
    recipe = recipe_of(merged, texts, ["merged"], objective="classification", training={"steps": 1})
    judging = graftkit.run(recipe, out=folder / "judging").exports["merged"]
    assert not (judging / "modules.json").exists()
    assert not any("embedding_" in key for key in json.loads((judging / "config.json").read_text()))
    again = graftkit.run(recipe_of(merged, records, ["peft"], training={"steps": 1}), out=folder / "again")
    whole = graftkit.export(again.exports["peft"], "merged", out=folder / "of again").folder
    assert json.loads((whole / "config.json").read_text())["embedding_prompts"] == {}


@pytest.mark.parametrize(
    "said,told",
    [
        (
            {"embedding_pooling": "max"},
            r"its vectors are made of max \(config.json\), of which graftkit knows the mean",
        ),
        (
            {"embedding_pooling": "cls"},
            "embedding_pooling of its config.json is 'cls', and its sentence-transformers files say 'mean'",
        ),
        ({"embedding_prompts": {"query": "x"}}, "is {'query': 'x'}, and its .* files say {'query': 'find '}"),
        ({"embedding_prompts": {"query": 5}}, "its embedding_prompts are no texts by the names query and document"),
        ({"embedding_prompts": {"passage": "x"}}, "its embedding_prompts are no texts by the names query and document"),
    ],
)
def test_a_config_that_says_something_else_of_vectors_is_refused(
    result: Any, tmp_path: Path, said: Mapping[str, Any], told: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(result.exports["merged"], copied, ignore=shutil.ignore_patterns("graftkit.json"))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, **said}))
    with pytest.raises(ModelError, match=told):
        reload_any(str(copied))
    with pytest.raises(ModelError, match=told):
        graftkit.evaluate(str(copied), records=[*RECORDS])


def test_a_model_of_vectors_is_asked_of_no_conversation(result: Any) -> None:
    asked: Any = ["hello", [{"role": "user", "content": "hello"}]]
    with pytest.raises(RequestError, match=r"texts\[1\]: it is a conversation, and the model takes single texts alone"):
        graftkit.judge(result.folder, asked)
    for text, told in (
        (" ", "is empty"),
        ("", "is empty"),
        ("half \ud800", "is not UTF-8"),
        ("a " * 200, "has 202 tok"),
    ):
        with pytest.raises(RequestError, match=rf"texts\[1\]: the text {told}"):
            graftkit.judge(result.folder, ["a", text])
    [near] = graftkit.judge(result.folder, {"text": ASKED[0], "text_pair": ASKED[0]})
    assert near.facts["similarity"] == pytest.approx(1, abs=1e-5)


def test_a_table_may_have_fewer_negatives_in_some_rows(bert: Path, tmp_path: Path) -> None:
    rows = [f"q {n},{'' if n == 5 else f'p {n}'},n {n},{'' if n % 2 else f'm {n}'}" for n in range(20)]
    place = tmp_path / "records.csv"
    place.write_text("\n".join(["query,positive,negative_1,negative_2", *rows]))
    data = {"train": {"path": str(place), "empty": "skip"}, "holdout": 0}
    planned = graftkit.plan(recipe_of(bert, place, data=data))
    negatives = [len(sample.negatives) for sample in planned.samples.train if isinstance(sample, SimilarTexts)]
    assert negatives[:4] == [2, 1, 2, 1]
    assert len(planned.samples.train) == 19


def test_a_tokenizer_without_padding_is_given_one(folder: Path, tmp_path: Path) -> None:
    """As Llama's and GPT-2's have none; sentence-transformers pads whatever it encodes."""
    from sentence_transformers import SentenceTransformer

    model = tiny_model_folder(tmp_path / "llama")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    records = written(folder / "records.jsonl", RECORDS)
    merged = graftkit.run(recipe_of(model, records, ["merged"], training={"steps": 1}), out=tmp_path / "run")
    assert merged.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    theirs = SentenceTransformer(str(merged.exports["merged"]), device="cpu", local_files_only=True)
    expected = torch.from_numpy(theirs.encode(ASKED))
    assert torch.allclose(vectors_of(merged.exports["merged"], ASKED), expected, atol=1e-5)


@pytest.mark.parametrize("config", [{"model_type": "distilbert", "dim": 24}, {"model_type": "gpt2", "n_embd": 24}])
def test_the_width_of_vectors_is_told_whatever_a_model_calls_it(config: Mapping[str, Any], tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    config = {**config, "embedding_pooling": "cls"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_sentence_files(tmp_path, config)
    loaded = Pooling.load(str(tmp_path / "1_Pooling"))
    assert (loaded.get_embedding_dimension(), loaded.pooling_mode) == (24, "cls")


def test_a_model_of_sentence_transformers_goes_on_as_it_was_made(bert: Path, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    modules = [Transformer(str(bert)), Pooling(32, pooling_mode="cls"), Normalize()]
    theirs = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "query: "})
    theirs.save(str(place := folder / "theirs"))
    expected = torch.from_numpy(theirs.encode(ASKED))
    assert torch.allclose(vectors_of(place, ASKED), expected, atol=1e-5)
    records = written(folder / "records.jsonl", RECORDS)
    planned = graftkit.plan(recipe_of(place, records))
    assert planned.head is not None and planned.head.pooled_by == "cls"
    assert not any("each query is compared" in told for told in planned.notices)
    assert any("the tokenizer loses" in told and "tokenizer.extend" not in told for told in planned.notices)
    few = graftkit.plan(recipe_of(place, records, training={"tokens_per_step": 64})).notices
    assert any("a step has about" in told and "raise training.tokens_per_step" in told for told in few), few
    assert any("put a prompt before texts: 'query: ' (query); the recipe puts none" in told for told in planned.notices)
    said = json.loads((settings := place / "config_sentence_transformers.json").read_text())
    settings.write_text(json.dumps({**said, "default_prompt_name": "query", "similarity_fn_name": "dot"}))
    told = " ".join(graftkit.plan(recipe_of(place, records)).notices)
    assert "'query: ' (query, unless asked otherwise)" in told and "compare vectors by" not in told, "of the length 1"
    settings.write_text(json.dumps({**said, "similarity_fn_name": "euclidean"}))
    told = " ".join(graftkit.plan(recipe_of(place, records)).notices)
    assert "compare vectors by euclidean: here their cosine is learnt" in told
    settings.write_text(json.dumps(said))
    said = {"use": "embedding", "query_prompt": ""}
    assert not any("prompt" in told for told in graftkit.plan(recipe_of(place, records, objective=said)).notices)


def test_what_sentence_transformers_does_with_texts_is_told(folder: Path, tmp_path: Path) -> None:
    """Where it cuts them earlier, or writes them in lower case; what is said of both holds in `merged` exports."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    roberta = encoder_folder(tmp_path / "roberta", "roberta")
    modules = [Transformer(str(roberta), max_seq_length=64), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(place := tmp_path / "theirs"))
    records = written(folder / "records.jsonl", RECORDS)

    def told(length: int | None = None, **said: Any) -> list[str]:
        (place / "sentence_bert_config.json").write_text(json.dumps({**settings, **said}))
        recipe = recipe_of(place, records, ["merged"], data={} if length is None else {"max_length": length})
        return [text for text in graftkit.plan(recipe).notices if "are learnt" in text]

    settings = json.loads((place / "sentence_bert_config.json").read_text())
    assert told(64) == told(32) == []
    cut, kept = told()
    assert "cut texts after 64 tokens, and here 128 are learnt: data.max_length: 64" in cut
    assert "merged export cuts texts after 64 tokens, as model_max_length" in kept
    [lower] = told(64, do_lower_case=True)
    assert "do_lower_case" in lower and '{"type": "Lowercase"} first in the "normalizer"' in lower
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    (place / "tokenizer.json").write_text(json.dumps({**tokenizer, "normalizer": {"type": "Lowercase"}}))
    assert told(64, do_lower_case=True) == []
    config = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 128}))
    [earlier] = told(max_seq_length=32)
    assert "cut texts after 32 tokens, and here 128 are learnt" in earlier
    [first] = told(max_seq_length=32, tokenizer_args={"model_max_length": 16})
    assert "cut texts after 16 tokens, and here 128 are learnt" in first
    (place / "sentence_roberta_config.json").write_text('{"max_seq_length": 8}')  # of an early version
    (place / "sentence_bert_config.json").unlink()
    [old] = [text for text in graftkit.plan(recipe_of(place, records, ["merged"])).notices if "are learnt" in text]
    assert "cut texts after 8 tokens, and here 128 are learnt" in old
    (place / "config_sentence_transformers.json").write_text('{"truncate_dim": 16}')
    planned = graftkit.plan(recipe_of(place, records, ["merged"]))
    assert any("keep the first 16 numbers of a vector (truncate_dim)" in told for told in planned.notices)


_POOLS = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
_READS = {"path": "", "type": "sentence_transformers.models.Transformer"}


@pytest.mark.parametrize(
    ("modules", "pooling", "prompts", "told"),
    [
        ([_READS] * 65, {}, {}, "it lists 65 modules; at most 64 are read"),
        ([_READS, _POOLS, _POOLS], {"pooling_mode": "cls"}, {}, r"go through a module Pooling \(3\)"),
        ([_READS, {**_POOLS, "type": "custom.Pooling"}], {"pooling_mode": "cls"}, {}, "a module custom.Pooling"),
        ([{**_READS, "type": "custom.Transformer"}, _POOLS], {"pooling_mode": "cls"}, {}, "a module custom.Transf"),
        ([_READS, {**_POOLS, "path": "in/1_Pooling"}], {"pooling_mode": "cls"}, {}, "is not to be found in the folder"),
        ([_READS, _POOLS], {"pooling_mode": 5}, {}, "its vectors are made of 5"),
        ([_READS, _POOLS], {"pooling_mode": {"cls": 1}}, {}, "its vectors are made of {'cls': 1}"),
        ([_READS, _POOLS], {"pooling_mode": "cls"}, {"query": 5}, "are no texts by their names"),
        ([_READS, _POOLS], {"pooling_mode": "cls"}, ["x"], "are no texts by their names"),
    ],
)
def test_what_graftkit_does_not_make_vectors_by_is_refused(
    bert: Path, folder: Path, tmp_path: Path, modules: Any, pooling: Any, prompts: Any, told: str
) -> None:
    """And is never taken for the mean."""
    base = shutil.copytree(bert, tmp_path / "base")
    (base / "modules.json").write_text(json.dumps(modules))
    (base / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ModelError, match=told):
        graftkit.plan(recipe_of(base, written(folder / "records.jsonl", RECORDS)))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"transformer_task": "fill-mask"}, "transformer_task: fill-mask"),
        ({"module_output_name": "sentence_embedding"}, "module_output_name: sentence_embedding"),
        (
            {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
            r"modality_config: \{'text': .*'pooler_output'",
        ),
        ({"modality_config": {"message": {"method": "forward"}}}, "modality_config: {'message'"),
        ({"modality_config": [5]}, r"modality_config: \[5\]"),
        ({"config_args": {"num_hidden_layers": 1}}, "config_args: {'num_hidden_layers': 1}"),
        ({"model_kwargs": [1]}, r"model_kwargs: \[1\]"),
        ({"processor_kwargs": {"truncation_side": "left"}}, "processor_kwargs: {'truncation_side': 'left'}"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs.text: {'add_special"),
        ({"query_length": 4}, "query_length: 4"),
        (None, "the model lies in a folder of its own"),
    ],
)
def test_a_model_that_gives_other_states_to_sentence_transformers_is_refused(
    bert: Path, folder: Path, tmp_path: Path, said: Any, told: str
) -> None:
    """Such as those of fewer layers, or of the weights in another folder."""
    base = shutil.copytree(bert, tmp_path / "base")
    (base / "modules.json").write_text(json.dumps([{**_READS, "path": "" if said else "0_Transformer"}, _POOLS]))
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (base / "sentence_bert_config.json").write_text(json.dumps(said or {}))
    records = written(folder / "records.jsonl", RECORDS)
    with pytest.raises(ModelError, match=f"{told}.*which graftkit does not follow"):
        graftkit.plan(recipe_of(base, records))
    graftkit.plan(recipe_of(base, records, objective={"use": "embedding", "pooling": "mean"}))
    usual = {"model_args": {"torch_dtype": "float32"}, "tokenizer_args": {"padding_side": "left"}, "query_length": None}
    ways = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}, "message": {"format": "flat"}}
    (base / "sentence_bert_config.json").write_text(json.dumps({**usual, "modality_config": ways}))
    (base / "modules.json").write_text(json.dumps([_READS, _POOLS]))
    graftkit.plan(recipe_of(base, records))


def test_training_goes_on_where_it_stopped(bert: Path, folder: Path) -> None:
    """Blocks that are computed a second time change nothing."""
    recipe = recipe_of(bert, written(folder / "records.jsonl", RECORDS), adapter={"use": "lora", "dropout": 0.1})
    for out, steps in (("whole", (4,)), ("parts", (2, 4))):
        for count in steps:
            training = {**recipe["training"], "steps": count, "schedule": "constant", "warmup": 0}
            memory = {"checkpoint": "blocks" if out == "parts" else "none"}
            graftkit.run({**recipe, "training": training, "memory": memory}, out=folder / out, resume=count != steps[0])
    whole, parts = (
        load_file(folder / out / "checkpoints" / "step-00000004" / "state.safetensors") for out in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_init_and_preview_know_texts_that_are_found_by_others(bert: Path, folder: Path, tmp_path: Path) -> None:
    records, recipe = written(folder / "records.jsonl", RECORDS), tmp_path / "mine.yaml"
    done = CliRunner().invoke(init, [str(recipe), "--model", str(bert), "--train", str(records)])
    assert done.exit_code == 0, done.output
    assert load_recipe(recipe).recipe.objective.use == "embedding"
    alone = {"model": str(bert), "data": {"train": str(records), "holdout": 0}, "objective": "embedding"}
    chosen = graftkit.plan(alone).chosen["tokens_per_step"]
    assert chosen > 50 * sum(len(" ".join(record.values()).split()) for record in RECORDS) / len(RECORDS)
    shown = CliRunner().invoke(preview, [str(recipe), "--records", "1"])
    assert shown.exit_code == 0 and shown.output.count("[CLS]") == 3, shown.output


def test_vectors_follow_the_numbers_of_pairs(bert: Path, folder: Path) -> None:
    """Each text is a sequence of its own, with its own prompt; `evaluate` goes by the records, too."""
    records = written(folder / "pairs.jsonl", PAIRS)
    objective = {"use": "similarity", "query_prompt": "un ", "temperature": 0.5}
    training = {"steps": 16, "microbatch_tokens": 512}
    done = graftkit.run(recipe_of(bert, records, objective=objective, training=training), out=folder / "pairs")
    assert done.before is not None and done.after is not None
    assert {*done.after.metrics} == {"cosine", "spearman"}
    assert done.after.metrics["spearman"] > done.before.metrics["spearman"] + 0.3
    assert done.after.metrics["spearman"] > 0.5 and done.after.holdout_loss < done.before.holdout_loss
    said = {"kind": "embedding", "labels": [], "pad": 0, "pooled_by": "mean", "prompts": {"query": "un "}}
    assert done.manifest["head"] == said
    [measured] = graftkit.evaluate(str(done.folder), records=str(records))
    model = reload_any(str(done.folder))
    assert isinstance(model, HeadModel)
    cosines = [model.embed("un " + one["sentence1"])[0] @ model.embed(one["sentence2"])[0] for one in PAIRS]
    assert measured.measured.metrics["cosine"] == pytest.approx(torch.stack(cosines).mean().item(), abs=1e-4)


@pytest.mark.parametrize(
    "record,objective,told",
    [
        ({"text": "a", "score": 1.0}, "similarity", "learns from pairs of texts with numbers.*objective: regression"),
        ({"query": "a", "positive": "b"}, "similarity", "found by another learns objective: embedding"),
        ({"text": "a"}, "similarity", "format: score, columns: {text: ..., text_pair: ..., score: ...}"),
        ({"sentence1": "a", "sentence2": "b", "score": 1.0}, "embedding", "a number learns objective: similarity"),
        ({"sentence1": "a", "sentence2": "b", "score": 1.0}, "similarity", "every record has the number 1: there is"),
        ({"sentence1": "a", "sentence2": "b", "score": 1e19}, "similarity", '"score" is 1e\\+19, no number from'),
        ({"sentence1": "a", "sentence2": "b", "score": None}, "similarity", '"score" is missing or null'),
        ({"sentence1": "a", "sentence2": " ", "score": 1.0}, "similarity", '"sentence2" is empty'),
        ({"sentence1": "a", "sentence2": "b", "label": 3}, "similarity", "format: score, columns: {score: label}"),
    ],
)
def test_pairs_without_a_number_to_follow_are_refused(
    bert: Path, tmp_path: Path, record: Mapping[str, Any], objective: str, told: str
) -> None:
    other = {**record, "score": 1.0} if "score" in record else record
    place = written(tmp_path / "records.jsonl", [other, record])
    with pytest.raises(DataError, match=f"(?s){told}"):
        graftkit.plan(recipe_of(bert, place, objective=objective, data={"holdout": 0}))


def test_init_and_preview_know_pairs_with_a_number(bert: Path, folder: Path, tmp_path: Path) -> None:
    """Of a model that gives vectors they are learnt by those; of another one by a head, and the other way is told."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    SentenceTransformer(modules=[Transformer(str(bert)), Pooling(32)], device="cpu").save(str(tmp_path / "theirs"))
    records = written(tmp_path / "pairs.jsonl", PAIRS)
    for model, objective in ((tmp_path / "theirs", "similarity"), (bert, "regression")):
        recipe = tmp_path / f"{objective}.yaml"
        done = CliRunner().invoke(init, [str(recipe), "--model", str(model), "--train", str(records)])
        assert done.exit_code == 0 and "objective: similarity learns vectors" in done.output, done.output
        assert load_recipe(recipe).recipe.objective.use == objective
    for model, objective in ((bert, "similarity"), (tmp_path / "theirs", "regression")):
        recipe = tmp_path / f"{objective}-asked.yaml"
        asked = ["--model", str(model), "--train", str(records), "--objective", objective]
        done = CliRunner().invoke(init, [str(recipe), *asked])
        suited = load_recipe(tmp_path / f"{objective}.yaml").recipe
        assert done.exit_code == 0 and load_recipe(recipe).recipe.training == suited.training, done.output
    alone = written(tmp_path / "alone.jsonl", [{"text": each["sentence1"], "score": each["score"]} for each in PAIRS])
    done = CliRunner().invoke(init, [str(tmp_path / "alone.yaml"), "--model", str(bert), "--train", str(alone)])
    assert done.exit_code == 0 and "objective: regression" in done.output and "similarity" not in done.output
    shown = CliRunner().invoke(preview, [str(tmp_path / "similarity.yaml"), "--records", "1"])
    assert shown.exit_code == 0 and shown.output.count("[CLS]") == 2, shown.output
    for one, other, number in (
        ("sentence1", "sentence2", "similarity_score"),
        ("sentence_A", "sentence_B", "relatedness"),
    ):
        rows = [{one: row["sentence1"], other: row["sentence2"], number: n / 9} for n, row in enumerate(PAIRS)]
        place, recipe = written(tmp_path / f"{number}.jsonl", rows), tmp_path / f"{number}.yaml"
        done = CliRunner().invoke(init, [str(recipe), "--model", str(tmp_path / "theirs"), "--train", str(place)])
        assert done.exit_code == 0, done.output
        assert graftkit.plan(recipe).bound.objective.use == "similarity"
        with pytest.raises(DataError, match=f"(?s)no format fits.*a number.*format: score, .*score: {number}"):
            graftkit.plan(recipe_of(bert, place, objective="similarity"))


def test_an_adapter_that_peft_wrote_is_asked_exported_and_trained_on(bert: Path, folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoTokenizer

    base = AutoModel.from_pretrained(str(bert))
    theirs = get_peft_model(base, LoraConfig(r=4, task_type="FEATURE_EXTRACTION", target_modules=["query"]))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    theirs.save_pretrained(str(tmp_path / "peft"))
    states = theirs.eval()(**AutoTokenizer.from_pretrained(bert)(ASKED[0], return_tensors="pt")).last_hidden_state[0]
    model = reload_any(str(tmp_path / "peft"), on=AdapterBase(str(bert)))
    assert isinstance(model, HeadModel)
    vector = states.mean(0) / states.mean(0).norm()
    assert torch.allclose(model.embed(ASKED[0])[0], vector.detach(), atol=1e-5)
    merged = graftkit.export(tmp_path / "peft", "merged", base=bert, out=tmp_path / "out").folder
    assert json.loads((merged / "graftkit.json").read_text())["proof"]["status"] == "proved"
    records = written(folder / "records.jsonl", RECORDS)
    recipe = recipe_of(bert, records, adapter={"from": str(tmp_path / "peft")}, training={"steps": 2})
    assert graftkit.run(recipe, out=tmp_path / "run").manifest["head"]["kind"] == "embedding"
    training, first = {"steps": 1}, {"use": "embedding", "pooling": "cls"}
    made = graftkit.run(recipe_of(bert, records, ["peft"], objective=first, training=training), out=tmp_path / "cls")
    planned: Any = graftkit.plan({**recipe, "adapter": {"from": str(made.exports["peft"])}})
    assert planned.head.pooled_by == "cls", "as the adapter's vectors are made"


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION"])
def test_an_adapter_of_sentence_transformers_says_how_vectors_are_made(bert: Path, tmp_path: Path, task: Any) -> None:
    """Its base, which is a model for masked tokens, says nothing, and would be pooled by the mean."""
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    theirs = SentenceTransformer(modules=[Transformer(str(bert)), Pooling(32, pooling_mode="cls")], device="cpu")
    theirs.add_adapter(LoraConfig(r=4, target_modules=["query"], init_lora_weights=False, task_type=task))
    theirs.save(str(adapter := tmp_path / "adapter"))
    expected = torch.from_numpy(theirs.encode(ASKED, normalize_embeddings=True))
    assert torch.allclose(vectors_of(adapter, ASKED), expected, atol=1e-5)
    records = written(tmp_path / "records.jsonl", RECORDS[:9])
    planned: Any = graftkit.plan(recipe_of(bert, records, adapter={"from": str(adapter)}))
    assert planned.head.pooled_by == "cls"
    (adapter / "1_Pooling" / "config.json").write_text('{"pooling_mode": "max"}')
    with pytest.raises(FolderError, match="its vectors are made of max"):
        reload_any(str(adapter))
    (adapter / "modules.json").unlink()
    body = encoder_folder(tmp_path / "body", "bert", whole=False)
    assert isinstance(reload_any(str(adapter), on=AdapterBase(str(body))), HeadModel)


@pytest.mark.parametrize(
    "records,objective,told",
    [
        ([{"query": "a", "positive": "b"}], "masked-lm", "the record has a text and others that are to be found by it"),
        ([{"text": "a"}], "embedding", "the objective embedding learns from texts that are found by another"),
        ([{"query": "a", "positive": 5}], "embedding", '"positive" holds a number, no text'),
        ([{"query": "a", "positive": "b", "negative": ["b"]}], "embedding", "'b' is to be found, and is a negative"),
        ([{"query": "a", "positive": ["b", " "]}], "embedding", 'a text in "positive" is empty'),
        (
            [{"query": "a", "positive": "b", "negative": " ['c', 'd']"}],
            "embedding",
            '"negative" is a list that is written',
        ),
        ([{"query": "a", "positive": '["b"]'}], "embedding", "reader: {use: csv, lists: [positive]}"),
        ([{"query": "a", "positive": ""}], "embedding", '"positive" is empty: there is nothing to learn'),
        ([{"query": "a", "positive": []}], "embedding", '"positive" is empty: there is nothing to learn'),
    ],
)
def test_what_is_found_by_nothing_is_refused(
    bert: Path, tmp_path: Path, records: Sequence[Mapping[str, Any]], objective: Any, told: str
) -> None:
    first = [] if "text" in records[0] else [{"query": "some", "positive": "text"}]
    place = written(tmp_path / "records.jsonl", [*first, *records])
    data = {"holdout": 0, "train": {"path": str(place), **({"format": "retrieval"} if first else {})}}
    with pytest.raises(DataError) as refused:
        graftkit.plan(recipe_of(bert, place, objective=objective, data=data))
    assert told in str(refused.value) and "records.jsonl" in str(refused.value)


def test_a_table_may_leave_documents_out(bert: Path, tmp_path: Path) -> None:
    """Its cells are texts: an empty one is as none, and lists are read where the reader is told so."""
    rows = [f"""q{n},{"p" if n % 3 else ""},{["", '"[""x"", ""y""]"'][n % 2]}""" for n in range(12)]
    (place := tmp_path / "table.csv").write_text("\n".join(["query,positive,negative", *rows]))
    train = {"path": str(place), "empty": "skip", "reader": {"use": "csv", "lists": ["negative"]}}
    recipe = recipe_of(bert, place, data={"train": train, "holdout": 0}, training={"steps": 1})
    done = graftkit.run(recipe, out=tmp_path / "run")
    assert done.manifest["data"]["train_examples"] == 8
    assert any("4 records have nothing to learn and are left out" in told for told in done.manifest["notices"])
    (place := tmp_path / "texts.csv").write_text("query,positive,negative\na,b,\nc,d,e\n")
    graftkit.plan(recipe_of(bert, place, data={"holdout": 0}))
    kept = written(tmp_path / "kept.jsonl", [{"query": "a", "positive": ['["b"]']}, {"query": "c", "positive": "[d]"}])
    graftkit.plan(recipe_of(bert, kept, data={"holdout": 0}))


def test_a_base_of_gguf_learns_vectors(folder: Path, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base.gguf", StoredTypes("q8_0"))
    records = written(folder / "records.jsonl", RECORDS)
    done = graftkit.run(recipe_of(base, records, ["peft"], training={"steps": 1}), out=tmp_path / "run")
    assert done.manifest["head"]["pooled_by"] == "lasttoken"
    assert done.manifest["exports"]["peft"]["proof"]["status"] == "proved"


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(bert: Path, tmp_path: Path) -> None:
    """All queries would be the same tokens."""
    records = written(tmp_path / "records.jsonl", RECORDS[:9])
    objective = {"use": "embedding", "query_prompt": "the film was long and great: "}
    recipe = recipe_of(bert, records, objective=objective, data={"max_length": 9}, training={"steps": 1})
    graftkit.run({**recipe, "data": {**recipe["data"], "max_length": 10}}, out=tmp_path / "one is left")
    with pytest.raises(DataError, match="put before texts has 7 tokens, and data.max_length is 9: nothing of a text"):
        graftkit.run(recipe, out=tmp_path / "run")


@pytest.mark.parametrize(
    "record,told",
    [
        ({"query": "{0}", "positive": "the long and great film was {0}"}, "all documents are the same tokens"),
        ({"query": "the long and great film was {0}", "positive": "{0}"}, "all queries are the same tokens"),
        ({"query": "the long", "positive": "{0}", "negative": "un"}, ""),
        (
            {"sentence1": "the long and great film was {0}", "sentence2": "the long and great film was {0}"},
            "all pairs are the same tokens",
        ),
        ({"sentence1": "the long and great film was {0}", "sentence2": "{0}"}, ""),
    ],
)
def test_texts_that_begin_alike_are_told_where_the_rest_is_cut_off(
    bert: Path, tmp_path: Path, record: Mapping[str, str], told: str
) -> None:
    """Nothing is compared then: a loss of 0 is not what was learnt."""
    rows: list[dict[str, Any]] = [{name: text.format(word) for name, text in record.items()} for word in "abcdefgh"]
    if "query" not in record:
        rows = [{**row, "score": number / 8} for number, row in enumerate(rows)]
    objective, data = "embedding" if "query" in record else "similarity", {"max_length": 8, "holdout": 0}
    recipe = recipe_of(bert, written(tmp_path / "records.jsonl", rows), objective=objective, data=data)
    recipe["training"]["steps"] = 1
    if told:
        with pytest.raises(DataError, match=f"(?s){told}.*records.jsonl|records.jsonl.*{told}"):
            graftkit.run(recipe, out=tmp_path / "run")
    else:
        graftkit.run(recipe, out=tmp_path / "run")


def test_negatives_that_are_too_many_are_told(bert: Path, tmp_path: Path) -> None:
    rows = [{"query": f"a {n}", "pos": [f"b {n}", f"c {n}"], "neg": [f"d {n}", f"e {n}", f"f {n}"]} for n in range(9)]
    objective = {"use": "embedding", "negatives": 2}
    recipe = recipe_of(bert, written(tmp_path / "records.jsonl", rows), objective=objective, training={"steps": 1})
    done = graftkit.run({**recipe, "data": {**recipe["data"], "holdout": 0}}, out=tmp_path / "run")
    told = " ".join(done.manifest["notices"])
    assert "9 of 9 records have more negatives than objective.negatives" in told
    assert done.manifest["data"]["train_examples"] == 18, "each of two positives is an example"
    whole = {**recipe, "objective": {"use": "embedding", "dimensions": [8, 32]}}
    with pytest.raises(RecipeError, match="dimensions: 32 is no part of the model's vectors, which have 32 numbers"):
        graftkit.run(whole, out=tmp_path / "whole")
    with pytest.raises(RecipeError, match="dimensions: 8 is there twice"):
        graftkit.plan({**recipe, "objective": {"use": "embedding", "dimensions": [8, 4, 8]}})
    with pytest.raises(RecipeError, match="the objective embedding trains a model with another head"):
        graftkit.run({**recipe, "export": ["gguf-lora"]}, out=tmp_path / "gguf")


def test_numbers_of_pairs_by_which_nothing_is_told_apart_are_told(bert: Path, tmp_path: Path) -> None:
    """Those that differ by less than is learnt, and those that are held out and all the same."""
    year = [{**each, "score": 10**12 + n % 3} for n, each in enumerate(PAIRS[:9])]
    with pytest.raises(
        DataError, match="1000000000000.0 to 1000000000002.0, are all the same in single precision.*apart"
    ):
        graftkit.plan(recipe_of(bert, written(tmp_path / "close.jsonl", year), objective="similarity"))
    held = [{**each, "score": 2.5} for each in PAIRS[10:14]]
    data = {"holdout": str(written(tmp_path / "held.jsonl", held))}
    records = written(tmp_path / "records.jsonl", PAIRS[:9])
    recipe = recipe_of(bert, records, objective="similarity", data=data, training={"steps": 1})
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert any("all that is held out has the number 2.5" in notice for notice in result.manifest["notices"])
    assert result.after.holdout_loss == 0 and "spearman" not in result.after.metrics
