"""A base model whose tokenizer is a SentencePiece model, extended, trained and exported."""

from __future__ import annotations

import json
from pathlib import Path

import graftkit
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.testing import tiny_model_folder
from graftkit_sentencepiece.backend import SentencePieceBackend

TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
SPECIALS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
SPEC = TrainingSpec(
    300,
    SPECIALS,
    {"unk": "<unk>", "bos": "<s>", "eos": "<|im_end|>"},
    chat_template="{% for m in messages %}" + TURN + "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
)
RECIPE = """
model: ./model
tokenizer: {extend: {tokens: 10, corpus: more.txt}}
data: {train: records.jsonl}
quantizer: none
adapter: {use: lora, rank: 4}
training: {steps: 2, tokens_per_step: 64}
export: [merged]
"""


def test_an_extended_sentencepiece_model_is_exported_as_autotokenizer_reads_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tiny_model_folder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    trained = SentencePieceBackend().train(["say hi", "say 1 2 3 hello world"] * 3, SPEC)
    trained.save(folder)
    (folder / "tokenizer.json").unlink()
    records = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}] for n in range(20)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps({"messages": record}) + "\n" for record in records))
    (tmp_path / "more.txt").write_text("the zebra and the other zebra sang\n" * 30)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    result = graftkit.run(str(tmp_path / "recipe.yaml"), out=str(tmp_path / "out"))

    exported = result.exports["merged"]
    ours, theirs = SentencePieceBackend().load(exported), AutoTokenizer.from_pretrained(exported)
    assert ours.vocab_size > trained.vocab_size
    for text in ("the zebra said <b>hi</b>", "<|im_start|>user\nsay 1<|im_end|>\n", "  日本\n🎉"):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text, "all")
    assert max(ours.encode("the zebra")) >= trained.vocab_size


def test_an_added_token_without_a_row_is_told(tmp_path: Path) -> None:
    trained = SentencePieceBackend().train(["say hi", "say 1 2 3 hello world"] * 3, SPEC)
    folder = tiny_model_folder(tmp_path / "model", vocab_size=trained.vocab_size)
    (folder / "tokenizer.json").unlink()
    trained.save(folder)
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    for id, special in ((trained.vocab_size, True), (trained.vocab_size + 1, False)):
        entry = {"content": f"<image{id}>", "special": special}
        config["added_tokens_decoder"] = {**config.get("added_tokens_decoder", {}), str(id): entry}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "records.jsonl").write_text('{"text": "say hi"}\n' * 20)
    planned = graftkit.plan({"model": str(folder), "data": {"train": str(tmp_path / "records.jsonl")}})
    told = "none for 2 added tokens: '<image300>', '<image301>'"
    assert told in " ".join(planned.notices)
