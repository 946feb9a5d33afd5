"""Control tokens that texts, prompts and completions spell: plain characters that are counted, or parsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graftkit import Tokenizer
from graftkit.corpus import tokenize as tokenize_module
from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.sample_files import scan_samples
from graftkit.corpus.tally import Tally
from graftkit.corpus.tokenize import Position, tokenize
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.interfaces import samples as samples_module
from graftkit.interfaces.samples import Completion, Conversation, Message, Text
from graftkit.testing.records import open_files

START, END, EOS = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
LAID_OUT = f"{START}user\nhi{END}\n{START}assistant\nyes{END}"


def encoder(tokenizer: Tokenizer, *, parse: bool = True, max_length: int = 4096) -> Encoder:
    return Encoder(tokenizer, chat_template_of(tokenizer), max_length, rules=EncodingRules(parse_special_tokens=parse))


def test_a_text_of_another_program_has_its_control_tokens(bytewise: Tokenizer) -> None:
    [example] = encoder(bytewise).encode(Text(LAID_OUT, "1")).examples
    assert example.ids.tolist() == bytewise.encode(LAID_OUT, "all"), "and nothing after its own end"
    assert example.loss_mask[1:].all()
    [plain] = encoder(bytewise, parse=False).encode(Text(LAID_OUT, "1")).examples
    assert plain.ids.tolist() == [*bytewise.encode(LAID_OUT), *bytewise.encode(END, "all")]


def test_of_a_prompt_and_its_completion_the_completion_is_learnt(bytewise: Tokenizer) -> None:
    prompt = LAID_OUT.removesuffix(f"yes{END}")
    for completion, end in ((f"yes{END}", []), ("yes", bytewise.encode(END, "all"))):
        encoded = encoder(bytewise).encode(Completion(prompt, completion, "1"))
        [example] = encoded.examples
        assert example.ids.tolist() == [*bytewise.encode(prompt + completion, "all"), *end]
        assert example.ids[example.loss_mask].tolist() == [*bytewise.encode(completion, "all"), *end]
        assert encoded.stops and encoded.spells is None
        assert encoder(bytewise).prompt(prompt) == example.ids[: example.prompt_length].tolist()


def test_a_text_that_begins_with_its_bos_token_gets_no_second_one(tmp_path: Path, bytewise: Tokenizer) -> None:
    bytewise.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"bos_token": EOS, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    from graftkit_tokenizers.huggingface import HuggingFaceBackend

    tokenizer = HuggingFaceBackend().load(tmp_path)
    found = [encoder(tokenizer).encode(Text(text, "1")).examples[0].ids.tolist() for text in (f"{EOS}ab", "ab")]
    assert found[0] == found[1] == tokenizer.encode(f"{EOS}ab{END}", "all")


def test_in_conversations_they_stay_plain(bytewise: Tokenizer) -> None:
    record = Conversation((Message("user", END), Message("assistant", f"a{START}")), "1")
    plain, parsed = (encoder(bytewise, parse=parse).encode(record) for parse in (False, True))
    assert plain.examples[0].ids.tolist() == parsed.examples[0].ids.tolist()
    assert plain.spells == parsed.spells == START, "which an assistant says"
    assert encoder(bytewise).encode(Conversation((Message("user", END), Message("assistant", "a")), "1")).spells is None


def test_the_mode_is_a_part_of_what_tokens_depend_on(bytewise: Tokenizer) -> None:
    assert encoder(bytewise).fingerprint != encoder(bytewise, parse=False).fingerprint
    again = encoder(bytewise).for_tokenizer(bytewise, chat_template_of(bytewise))
    assert again.fingerprint == encoder(bytewise).fingerprint


def test_records_that_spell_them_are_counted(bytewise: Tokenizer, tmp_path: Path) -> None:
    texts = [LAID_OUT, "plain", f"a{END}", f"b{END}"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pairs = [("a", "b"), (END, "b"), ("a", f"b{END}")]
    lines = [json.dumps({"prompt": prompt, "completion": completion}) + "\n" for prompt, completion in pairs]
    (tmp_path / "b.jsonl").write_text("".join(lines))
    turns = [{"role": "user", "content": START}, {"role": "assistant", "content": f"a{START}b{END}"}]
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    records = scan_samples(open_files([tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")]))
    for parse, spelt in ((False, {START: 1, END: 4}), (True, {})):
        tally = Tally()
        for chunk in tokenize(encoder(bytewise, parse=parse), records, Position()):
            tally = tally.plus(chunk.tally, 5)
        assert (tally.spelt, tally.said) == (spelt, {START: 1})
        assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


@pytest.mark.parametrize("end", ["", END, "\n"])
@pytest.mark.parametrize("parse", [True, False])
def test_a_long_text_becomes_what_it_becomes_as_one(
    merging: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, parse: bool
) -> None:
    text = f"{LAID_OUT}\n" * 90 + "Hello" + end
    (tmp_path / "a.txt").write_text(text)
    monkeypatch.setattr(samples_module, "LONG_TEXT", 1000)
    monkeypatch.setattr(tokenize_module, "_STRETCH", 600)
    monkeypatch.setattr("graftkit.corpus.long_text._AHEAD", 100)
    used = encoder(merging, parse=parse)
    chunks = list(tokenize(used, scan_samples(open_files([tmp_path / "a.txt"])), Position()))
    assert len(chunks) > 2
    expected = [example.ids.tolist() for example in used.encode(Text(text, "1")).examples]
    found = [
        chunk.tokens.ids[a:b].tolist()
        for chunk in chunks
        for a, b in zip(chunk.tokens.offsets, chunk.tokens.offsets[1:], strict=False)
    ]
    assert found == expected
    assert [token for chunk in chunks for token in chunk.tally.spelt] == ([] if parse else [START])


def test_a_cut_off_example_gives_no_stop_token(bytewise: Tokenizer) -> None:
    used = Encoder(bytewise, None, 8, rules=EncodingRules(overflow="truncate", parse_special_tokens=True))
    sample = Completion("abcd", f"efg{START}more{END}", "1")
    found = tokenize_module._one_by_one(used, [sample], 0)
    assert found.tokens.ids[-1] == bytewise.special_tokens[START] and found.tally.stops == []
