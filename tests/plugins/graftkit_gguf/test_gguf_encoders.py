"""Encoders that give vectors as GGUF: llama.cpp computes what transformers computes, of tokens that are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_models import encoder_folder
from graftkit.errors import ExportError, ModelError
from graftkit.interfaces.architecture import EMBEDDING_POOLING, PooledBy, head_of, with_head
from graftkit.interfaces.forward import pooled
from graftkit_gguf.architectures import complete_config
from graftkit_gguf.exported import check_exported
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.model_tensors import stored_tensors
from graftkit_gguf.source import GgufSource
from graftkit_gguf.stored_types import StoredTypes
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from graftkit_gguf.unicode_form import in_form
from graftkit_gguf.wordpiece import notices_of_scripts
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

ROLES = {"pad": 0, "unk": 1, "bos": 2, "eos": 3}
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


def write(path: Path, folder: Path, by: PooledBy = "mean") -> Any:
    """Writes a folder's model, whose pooler has no place, and returns it as transformers loads it."""
    config, model = config_of(folder, by), AutoModel.from_pretrained(folder).eval()
    cut = tokenizer_metadata(folder, config["vocab_size"], ROLES, (True, True), [])
    metadata = {**architecture_of(config).metadata(complete_config(config)), **cut}
    write_gguf(path, metadata, stored_tensors(config, model.state_dict().items(), StoredTypes("f32")))
    return model


@pytest.mark.parametrize("by", ["mean", "cls"])
def test_llama_cpp_makes_vectors_as_transformers_does(by: PooledBy, bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = write(path, bert, by)
    assert any(name.startswith("pooler.") for name in model.state_dict())
    files = GgufSource().open(str(path))
    assert (head_of(files.config), files.config[EMBEDDING_POOLING]) == ("embedding", by)
    state: dict[str, Any] = dict(files.read())
    own = model.state_dict()
    assert state.keys() == {name for name in own if not name.startswith("pooler.")}
    assert all(torch.equal(state[name], own[name]) for name in state)
    for key in ("hidden_act", "layer_norm_eps", "type_vocab_size", "max_position_embeddings"):
        assert files.config[key] == complete_config(config_of(bert))[key]
    assert check_exported(read_header(path)) == len(state["embeddings.word_embeddings.weight"])
    generator = torch.Generator().manual_seed(1)
    with LlamaCpp(path, 128, wholes=True) as program, torch.no_grad():
        for length in (1, 40, 128):
            ids = torch.randint(5, 80, (length,), generator=generator).tolist()
            vector = pooled(model(input_ids=torch.tensor([ids])).last_hidden_state[0], by)
            off = (program.vector(ids)[0] - vector).abs().max() / vector.abs().max()
            assert off < 1e-3, "whose GELU llama.cpp looks up in a table of half precision"


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
        ({"architectures": ["BertForMaskedLM"]}, "only where it gives vectors"),
        ({"architectures": ["BertForSequenceClassification"]}, "a head on sequences of the architecture 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act = relu"),
        ({"is_decoder": True}, "an encoder that is a decoder"),
    ):
        with pytest.raises(ModelError, match=told):
            architecture_of({**config, **changed}).metadata(complete_config({**config, **changed}))
