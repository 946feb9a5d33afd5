"""Encoders that give vectors as GGUF: llama.cpp computes what transformers computes, of tokens that are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_models import ENCODERS, encoder_folder
from gguf_models import fused
from graftkit.errors import ExportError, ModelError
from graftkit.interfaces.architecture import EMBEDDING_POOLING, PooledBy, head_of, labels_of, with_head
from graftkit.interfaces.forward import pooled
from graftkit_gguf.architectures import complete_config
from graftkit_gguf.exported import check_exported
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.model_tensors import BaseTensors, stored_tensors
from graftkit_gguf.pooling import DENSE, SCORES
from graftkit_gguf.reading import model_config
from graftkit_gguf.source import GgufSource
from graftkit_gguf.stored_types import StoredTypes
from graftkit_gguf.text_form import in_form, notices_of_spaces
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from graftkit_gguf.wordpiece import notices_of_scripts
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig

ROLES = {"pad": 0, "unk": 1, "bos": 2, "eos": 3}
OF_ROBERTA = {"bos": 0, "pad": 1, "eos": 2, "unk": 3}
ROBERTA_HEAD = {"architectures": ["RobertaForSequenceClassification"]}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
TEXTS = (
    "The film was lovely, and LONG; unlovely?",
    "Grüße, naïve cafe\u0301 ﬁ Ⅻ ½",
    "你好 film 世界。 안녕 film",
    "a\u200bb\tc\r\n  [UNK] [SEP] film ##ly x" + "y" * 90,
    "",
)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("encoders") / "bert", "bert", whole=False)


def config_of(folder: Path, by: PooledBy = "mean") -> dict[str, Any]:
    return with_head(json.loads((folder / "config.json").read_text()), "embedding", pooled_by=by)


def write(path: Path, folder: Path, by: PooledBy = "mean", roles: dict[str, int] = ROLES) -> Any:
    """Writes a folder's model, whose pooler has no place, and returns it as transformers loads it."""
    config, model = config_of(folder, by), AutoModel.from_pretrained(folder).eval()
    cut = tokenizer_metadata(folder, config["vocab_size"], roles, (True, True), [], wholes=True)
    metadata = {**architecture_of(config).metadata(complete_config(config)), **cut}
    write_gguf(path, metadata, stored_tensors(config, model.state_dict().items(), StoredTypes("f32")))
    return model


@pytest.mark.parametrize("kind,by", [("bert", "cls"), *((kind, "mean") for kind in ENCODERS)])
def test_llama_cpp_makes_vectors_as_transformers_does(kind: str, by: PooledBy, tmp_path: Path) -> None:
    """So does what is read back: of the same weights, but for the rows of positions that no text has."""
    path, folder = tmp_path / "model.gguf", encoder_folder(tmp_path / kind, kind, whole=False)
    model = write(path, folder, by)
    files = GgufSource().open(str(path))
    assert (head_of(files.config), files.config[EMBEDDING_POOLING]) == ("embedding", by)
    own, again = model.state_dict(), AutoModel.from_config(CONFIG_MAPPING[files.config["model_type"]](**files.config))
    left = again.load_state_dict(dict(files.read()), strict=False)
    needless = {name for name in own if name.startswith("pooler.")}
    assert ({*left.missing_keys}, left.unexpected_keys) == (needless, [])
    assert check_exported(read_header(path)) == files.config["vocab_size"]
    generator = torch.Generator().manual_seed(1)
    with LlamaCpp(path, 128, wholes=True) as program, torch.no_grad():
        for length in (1, 40, 128):
            ids = torch.randint(5, files.config["vocab_size"], (length,), generator=generator)
            vector = pooled(model(input_ids=ids[None]).last_hidden_state[0], by)
            ours = pooled(again.eval()(input_ids=ids[None]).last_hidden_state[0], by)
            assert torch.allclose(ours, vector, rtol=0, atol=1e-5)
            off = (program.vector(ids.tolist())[0] - vector).abs().max() / vector.abs().max()
            assert off < 1e-3, "whose GELU llama.cpp looks up in a table of half precision"


@pytest.mark.parametrize("kind", ["nomic_bert", "bert"])
def test_one_tensor_of_queries_keys_and_values_is_read_as_three(kind: str, tmp_path: Path) -> None:
    """As llama.cpp's converter writes NomicBERT's; in blocks, and with a bias where the model has one."""
    config, path = config_of(encoder_folder(tmp_path / kind, kind, whole=False)), tmp_path / "model.gguf"
    model = write(path, tmp_path / kind)
    apart = list(stored_tensors(config, model.state_dict().items(), StoredTypes("q8_0")))
    metadata, together = read_header(path).metadata, fused(apart)
    found = []
    for tensors in (apart, together):
        write_gguf(path, metadata, tensors)
        found.append(dict(GgufSource().open(str(path)).read()))
    ids = torch.randint(5, 80, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    assert any("attn_qkv" in name for name, *_ in together) and found[0].keys() == found[1].keys()
    for name, stored in found[0].items():
        ours, theirs = (each if torch.is_tensor(each) else each.dequantize() for each in (stored, found[1][name]))
        assert torch.equal(ours, theirs), name
    base = BaseTensors.open(str(path))
    assert base is not None and base.types["blk.0.attn_k.weight"] == "q8_0"
    with LlamaCpp(path, 64, wholes=True) as program:
        assert torch.isfinite(program.vector(ids)).all(), "as llama.cpp loads it"


def test_what_llama_cpps_converter_says_besides_changes_nothing(tmp_path: Path) -> None:
    """The function of ModernBERT's feed-forward part, where it is GELU, and labels that no head is for."""
    folder, path = encoder_folder(tmp_path / "modernbert", "modernbert", whole=False), tmp_path / "model.gguf"
    write(path, folder)
    header = read_header(path)
    said = {"modern-bert.classifier.output_labels": ["LABEL_0"], "modern-bert.hidden_activation": "gelu"}
    own = model_config(header)
    header.metadata.update(said)  # type: ignore[attr-defined]
    assert model_config(header) == own and own["hidden_activation"] == "gelu"
    header.metadata["modern-bert.hidden_activation"] = "silu"  # type: ignore[index]
    with pytest.raises(ModelError, match="hidden_activation' is 'silu', which is not supported"):
        model_config(header)


def test_llama_cpp_scores_texts_as_transformers_does(bert: Path, tmp_path: Path) -> None:
    """By BERT's two layers, whose scores it gives as they are."""
    config, path = with_head(config_of(bert), "sequence", ["bad", "fair", "good"]), tmp_path / "model.gguf"
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(BertConfig(**config)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    cut = tokenizer_metadata(bert, config["vocab_size"], ROLES, (True, True), [], wholes=True)
    metadata = {**architecture_of(config).metadata(complete_config(config)), **cut}
    write_gguf(path, metadata, stored_tensors(config, model.state_dict().items(), StoredTypes("q8_0")))
    assert {read_header(path).tensors[name].type.name for name in (DENSE, SCORES)} == {"F32"}
    write_gguf(path, metadata, stored_tensors(config, model.state_dict().items(), StoredTypes("f32")))
    files = GgufSource().open(str(path))
    assert head_of(files.config) == "sequence" and labels_of(files.config) == ["bad", "fair", "good"]
    state, own = dict(files.read()), model.state_dict()
    assert state.keys() == own.keys() and all(torch.equal(state[name], own[name]) for name in own)
    assert check_exported(read_header(path)) == config["vocab_size"]
    with LlamaCpp(path, 128, wholes=True) as program, torch.no_grad():
        for length in (1, 40, 128):
            ids = torch.randint(5, 80, (length,), generator=torch.Generator().manual_seed(length))
            scores = model(input_ids=ids[None]).logits
            torch.testing.assert_close(program.vector(ids.tolist()), scores, rtol=0, atol=1e-3)
            shares = program.log_shares_of_scores(ids.tolist())
            torch.testing.assert_close(shares, scores.log_softmax(-1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("lowercase,strips", [(True, None), (False, None), (True, False), (False, True)])
def test_texts_are_cut_as_bert_cuts_them(lowercase: bool, strips: bool | None, bert: Path, tmp_path: Path) -> None:
    """By llama.cpp, and by the tokenizer that is read back."""
    folder, back = tmp_path / "model", tmp_path / "back"
    back.mkdir()
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (folder / name).write_bytes((bert / name).read_bytes())
    spec = json.loads((bert / "tokenizer.json").read_text())
    spec["normalizer"] |= {"lowercase": lowercase, "strip_accents": strips}
    vocabulary = spec["model"]["vocab"]
    added = [
        *"FTHLONGüéıï你世好。안녕½Ⅻ;,?",
        "##ü",
        "##é",
        "##\u0301",
        "##ᅡ",
        "ᄋ",
        "##ᆫ",
        "##O",
        "##N",
        "##G",
        "##ﬁ",
        "cafe",
        "é",
    ]
    for piece in dict.fromkeys(added):
        free = next(key for key in vocabulary if key.startswith("##") and key[2:].isalnum() and key[2:].isascii())
        vocabulary[piece] = vocabulary.pop(free)
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    path = tmp_path / "model.gguf"
    write(path, folder)
    GgufSource().open_tokenizer(str(path)).save_tokenizer(back)
    theirs, again = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(back)
    with LlamaCpp(path, 64, wholes=True) as program:
        for text in TEXTS:
            expected = theirs.encode(text).ids
            assert again(text)["input_ids"] == expected
            assert program.tokens(in_form(text, read_header(path).metadata), whole=True) == expected
    pair, pair_again = theirs.encode("a film", "b"), again("a film", "b")
    assert pair_again["input_ids"] == pair.ids and pair_again["token_type_ids"] == pair.type_ids
    assert (again.cls_token, again.sep_token, again.unk_token, again.pad_token) == ("[CLS]", "[SEP]", "[UNK]", "[PAD]")


@pytest.mark.parametrize("kind,form", [("roberta", ""), *(("xlm-roberta", form) for form in ("words", "runs", "read"))])
def test_texts_are_cut_as_robertas_cut_them(kind: str, form: str, tmp_path: Path) -> None:
    """By llama.cpp, and by the tokenizer that is read back, which joins pairs likewise."""
    folder, back, path = encoder_folder(tmp_path / kind, kind, whole=False), tmp_path / "back", tmp_path / "model.gguf"
    back.mkdir()
    write(path, folder, roles=OF_ROBERTA)
    spec = json.loads((folder / "tokenizer.json").read_text())
    if form == "runs":
        strip = {"type": "Strip", "strip_left": False, "strip_right": True}
        runs = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
        steps = {"type": "Sequence", "normalizers": [spec["normalizer"], strip, runs]}
        spec |= {"normalizer": steps, "pre_tokenizer": METASPACE}
    if form == "read":
        GgufSource().open_tokenizer(str(path)).save_tokenizer(back)
        spec = json.loads((back / "tokenizer.json").read_text())
        spec["normalizer"]["normalizers"].pop(0)
    if form in ("runs", "read"):
        (folder / "tokenizer.json").write_text(json.dumps(spec))
    write(path, folder, roles=OF_ROBERTA)
    GgufSource().open_tokenizer(str(path)).save_tokenizer(back)
    theirs, again = Tokenizer.from_str(json.dumps(spec)), AutoTokenizer.from_pretrained(back)
    with LlamaCpp(path, 64, wholes=True) as program:
        for text in (*TEXTS, "a <mask>b\u3000 <mask>  c<s>long</s> love lyly   ", "½ Alo\xa0e\u0301", " \n "):
            expected = theirs.encode(text).ids
            assert again(text)["input_ids"] == expected
            assert program.tokens(in_form(text, read_header(path).metadata), whole=True) == expected
    assert again("a film", "b")["input_ids"] == theirs.encode("a film", "b").ids
    [told] = notices_of_spaces(read_header(path).metadata)
    assert "white space before '<mask>', which the tokenizer takes away" in told


@pytest.mark.parametrize(
    "section,said,told",
    [
        ("model", {"byte_fallback": True}, "without bytes' tokens"),
        ("model", {"unk_id": None}, "only with an unknown token"),
        ("model", {"vocab": [["<unk>", 0.0], ["a▁b", -1.0]], "unk_id": 0}, "as 'a▁b' has it"),
        ("model", {"vocab": [["<unk>", 0.0], ["b", -1.0], ["b", -1.0]], "unk_id": 0}, "without empty or equal pieces"),
        ("normalizer", {"type": "Lowercase"}, "only where it replaces characters by SentencePiece's table"),
        ("pre_tokenizer", METASPACE, "takes runs of spaces for one"),
        ("normalizer", {"type": "Sequence", "normalizers": []}, r"at white space .* not replace by spaces \(U\+0009"),
    ],
)
def test_a_unigram_tokenizer_that_cuts_otherwise_is_refused(
    section: str, said: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = encoder_folder(tmp_path / "xlm", "xlm-roberta", whole=False)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec[section] = {**(spec[section] if section == "model" else {}), **said}
    spec["added_tokens"] = [] if "vocab" in said else spec["added_tokens"]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ExportError, match=told):
        tokenizer_metadata(folder, 100, OF_ROBERTA, (True, True), [], wholes=True)


@pytest.mark.parametrize(
    "key,value,told",
    [
        ("remove_extra_whitespaces", False, "is not true, as it is of the Unigram tokenizers"),
        ("scores", [0.0], "but there are 56 tokens"),
        ("unknown_token_id", 56, "but there are 56 tokens"),
        ("precompiled_charsmap", [1, 2], "not an array of bytes"),
        ("precompiled_charsmap", b"\xff\xff\xff\xff", "its trie has 4,294,967,295 bytes"),
    ],
)
def test_a_unigram_tokenizer_that_contradicts_itself_is_refused(
    key: str, value: Any, told: str, tmp_path: Path
) -> None:
    folder, path = encoder_folder(tmp_path / "xlm", "xlm-roberta", whole=False), tmp_path / "model.gguf"
    config = config_of(folder)
    cut = tokenizer_metadata(folder, config["vocab_size"], OF_ROBERTA, (True, True), [], wholes=True)
    cut[f"tokenizer.ggml.{key}"] = value
    write_gguf(path, {**architecture_of(config).metadata(complete_config(config)), **cut}, [])
    with pytest.raises(ModelError, match=told):
        GgufSource().open_tokenizer(str(path)).save_tokenizer(tmp_path)


def test_scripts_that_llama_cpp_cuts_otherwise_are_told() -> None:
    strips = {"tokenizer.ggml.normalizer.strip_accents": True}
    assert notices_of_scripts({**strips, "tokenizer.ggml.tokens": ["▁film", "é"]}) == []
    told = notices_of_scripts({**strips, "tokenizer.ggml.tokens": ["▁क", "ा", "ᅡ"]})
    assert ["vowel signs" in told[0], "Korean" in told[1]] == [True, True]
    assert notices_of_scripts({"tokenizer.ggml.tokens": ["ा", "ᅡ"]}) == []


@pytest.mark.parametrize(
    "section,said,told",
    [
        ("normalizer", {"type": "Lowercase"}, "only where it splits and cleans text as BERT does"),
        ("normalizer", {"handle_chinese_chars": False}, "only where it splits and cleans text as BERT does"),
        ("pre_tokenizer", {"type": "Whitespace"}, "only where it splits and cleans text as BERT does"),
        ("model", {"continuing_subword_prefix": "@@"}, "only where ## stands before pieces within a word"),
        ("model", {"vocab": {"[UNK]": 0, "a": 1, "##▁a": 2}}, "its pieces have no form in GGUF"),
        ("model", {"vocab": {"[UNK]": 0, "b": 1, "##▁a": 2}}, "its pieces have no form in GGUF"),
    ],
)
def test_a_tokenizer_that_cuts_otherwise_is_refused(
    section: str, said: dict[str, Any], told: str, bert: Path, tmp_path: Path
) -> None:
    spec = json.loads((bert / "tokenizer.json").read_text())
    spec[section] |= said
    spec["added_tokens"] = [] if "vocab" in said else spec["added_tokens"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ExportError, match=told):
        tokenizer_metadata(tmp_path, 200, ROLES, (True, True), [])


def test_a_piece_that_begins_a_word_and_does_not_is_refused(bert: Path, tmp_path: Path) -> None:
    path, config = tmp_path / "model.gguf", config_of(bert)
    cut = tokenizer_metadata(bert, config["vocab_size"], ROLES, (True, True), [])
    cut["tokenizer.ggml.tokens"][-1] = "▁##film"
    write_gguf(path, {**architecture_of(config).metadata(complete_config(config)), **cut}, [])
    with pytest.raises(ModelError, match="of which one begins a word with ##"):
        GgufSource().open_tokenizer(str(path)).save_tokenizer(tmp_path)


def test_what_llama_cpp_puts_around_a_text_is_asked_for(bert: Path) -> None:
    with pytest.raises(ExportError, match="puts a WordPiece text between two tokens"):
        tokenizer_metadata(bert, 200, ROLES, (True, False), [])


def test_an_encoder_that_is_another_model_is_refused(bert: Path) -> None:
    config = config_of(bert)
    for changed, told in (
        ({"architectures": ["BertForMaskedLM"]}, "only where it gives vectors, or labels of texts"),
        ({"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"]}, r"only where it gives vectors\n"),
        (with_head(config, "sequence"), "of a single score only that they are"),
        (with_head(config, "sequence", ["a", "b"], several=True), "of scores of the problem type multi_label"),
        ({"model_type": "roberta", **ROBERTA_HEAD}, "a head on sequences of the architecture 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act = relu"),
        ({"is_decoder": True}, "an encoder that is a decoder"),
    ):
        with pytest.raises(ModelError, match=told):
            architecture_of({**config, **changed}).metadata(complete_config({**config, **changed}))
