"""The built-in tokenizers keep the contract that everybody's do."""

from __future__ import annotations

import json
from pathlib import Path

from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.testing import TokenizerContract, TrainedTokenizerContract, tiny_tokenizer_files
from graftkit.testing.contracts.tokenizer_training import training_texts


class TestHuggingFace(TokenizerContract):
    """Byte-level, with merges over part of 🎉, two added tokens that are not special, and GPT-2's splitting."""

    provider = "huggingface"

    def write_sample(self, folder: Path) -> None:
        super().write_sample(folder)
        spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
        vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
        for left, right in (("ð", "Ł"), ("h", "e"), ("he", "y"), ("Ġ", "he")):
            vocab[left + right] = len(vocab)
            merges.append([left, right])
        template = spec["added_tokens"][0]
        texts = {"<|endoftext|>": True, "<|im_start|>": True, "<|im_end|>": True, "<tool_call>": False, "éé": False}
        spec["added_tokens"] = [
            {**template, "id": len(vocab) + place, "content": text, "special": special}
            for place, (text, special) in enumerate(texts.items())
        ]
        (folder / "tokenizer.json").write_text(json.dumps(spec))


class TestHuggingFaceOfTheSentencePieceFamily(TokenizerContract):
    """▁ for spaces and bytes as <0x..>: not every text comes back, and it promises none."""

    provider = "huggingface"

    def write_sample(self, folder: Path) -> None:
        super().write_sample(folder)
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdehlos", "▁h", "he"]
        spec = json.loads(tiny_tokenizer_files()["tokenizer.json"])
        template = spec["added_tokens"][0]
        space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        spec |= {
            "pre_tokenizer": None,
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "decoder": {"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "added_tokens": [{**template, "id": id, "content": pieces[id]} for id in range(3)],
        }
        vocab = {piece: id for id, piece in enumerate(pieces)}
        merges = [["▁", "h"], ["h", "e"]]
        spec["model"] |= {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
        spec["model"] |= {"vocab": vocab, "merges": merges}
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(roles))


class TestByteLevel(TrainedTokenizerContract):
    """GPT-2's splitting, 256 bytes, merges, special tokens first."""

    provider = "byte-level"


class TestSentencePiece(TrainedTokenizerContract):
    """BPE with bytes for what has no piece, a space in front of a text, and runs of spaces as tokens."""

    provider = "sentencepiece"


class TestSentencePieceUnigram(TrainedTokenizerContract):
    """The most likely pieces instead of merges; texts are normalized, and spaces at the ends go."""

    provider = "sentencepiece"
    options = {"model_type": "unigram", "normalization": "nmt_nfkc", "remove_extra_whitespaces": True}


class TestSentencePieceWithAddedTokens(TokenizerContract):
    """What a Hugging Face repository adds to a model: tokens beyond its pieces that swallow spaces."""

    provider = "sentencepiece"

    def write_sample(self, folder: Path) -> None:
        spec = TrainingSpec(560, ("<s>", "</s>"), {"bos": "<s>", "eos": "</s>"}, adds_bos=True)
        tokenizer = self.make().train(training_texts(), spec)
        tokenizer.save(folder)
        size = tokenizer.vocab_size
        texts = {"<|im_start|>": True, "<|im_end|>": True, "<tool_call>": False, "éé": False}
        decoder = {
            str(size + place): {"content": text, "special": special, "rstrip": special}
            for place, (text, special) in enumerate(texts.items())
        }
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config |= {"added_tokens_decoder": decoder, "eos_token": "<|im_end|>", "legacy": False}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


class TestBpe(TrainedTokenizerContract):
    """Spaces as ▁, so that not every text comes back: ▁ itself does not."""

    provider = "bpe"


class TestWordPiece(TrainedTokenizerContract):
    """BERT's cleaning; unknown words."""

    provider = "wordpiece"


class TestWord(TrainedTokenizerContract):
    """Words and marks; unknown ones."""

    provider = "word"


class TestCharacter(TrainedTokenizerContract):
    """Characters and bytes: every text comes back."""

    provider = "character"
