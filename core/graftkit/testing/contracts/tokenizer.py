"""What every tokenizer promises, beyond what it declares of itself."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graftkit.errors import RequestError
from graftkit.interfaces.tokenizer import (
    AddedTokens,
    CertainCuts,
    ControlTokens,
    JoinsPairs,
    Specials,
    Tokenizer,
    TokenizerCapabilities,
    bytes_of,
)
from graftkit.testing.contracts.base import check_interface
from graftkit.testing.contracts.texts import TEXTS, every_character, random_texts
from graftkit.testing.contracts.tokenizer_extension import TokenizerExtensionContract
from graftkit.testing.fresh import call_fresh
from graftkit.testing.tiny import tiny_tokenizer_files

__all__ = ["TokenizerContract", "files_in"]


class TokenizerContract(TokenizerExtensionContract):
    """Loads a tokenizer from a sample of its files and puts all of Unicode through it.

    Example:
        >>> class TestByteLevel(TokenizerContract):
        ...     provider = "huggingface"
    """

    kind = "tokenizer"

    def write_sample(self, folder: Path) -> None:
        """Writes the files that the backend loads. Override it where that is no tokenizer.json."""
        for name, data in tiny_tokenizer_files().items():
            (folder / name).write_bytes(data)

    @pytest.fixture
    def sample(self, tmp_path: Path) -> Path:
        """A folder with the sample's files."""
        folder = tmp_path / "sample"
        folder.mkdir()
        self.write_sample(folder)
        return folder

    @pytest.fixture
    def tokenizer(self, sample: Path) -> Tokenizer:
        """The sample, loaded."""
        return self.load(sample)

    def load(self, folder: Path) -> Tokenizer:
        """Loads a tokenizer with the provider."""
        loaded: Tokenizer = self.make().load(folder)
        return loaded

    def texts(self, tokenizer: Tokenizer) -> list[str]:
        """Returns texts of many kinds, such as spell special tokens among them."""
        return [*TEXTS, *_spelling(tokenizer), *random_texts(60)]

    def test_what_it_loads_is_a_tokenizer(self, tokenizer: Tokenizer) -> None:
        """With every attribute and method of the Protocol."""
        check_interface(tokenizer, Tokenizer)
        kind = type(tokenizer.capabilities).__name__
        assert isinstance(tokenizer.capabilities, TokenizerCapabilities), f"capabilities is a {kind}"
        assert tokenizer.chat_template is None or tokenizer.chat_template.strip(), "no template is None, not empty"
        assert not tokenizer.adds_bos or tokenizer.role_token("bos") is not None, "adds_bos, but no role_token('bos')"

    def test_every_character_comes_back_as_declared(self, tokenizer: Tokenizer) -> None:
        """All of Unicode, in texts of a thousand characters."""
        for text in every_character():
            _check_comes_back(tokenizer, text)

    def test_every_text_comes_back_as_declared(self, tokenizer: Tokenizer) -> None:
        """Texts that spell special tokens, too."""
        for text in self.texts(tokenizer):
            _check_comes_back(tokenizer, text)

    def test_the_empty_text_is_no_token(self, tokenizer: Tokenizer) -> None:
        """And no token is the empty text."""
        assert tokenizer.encode("") == [], (
            f'encode("") gives {tokenizer.encode("")}: add no token that is not asked for'
        )
        assert tokenizer.encode_batch([]) == [], "encode_batch([]) is not []"
        assert tokenizer.encode_offsets("").ids == [], 'encode_offsets("") gives ids'
        assert (tokenizer.decode([]), tokenizer.decode_bytes([])) == ("", b""), "no ids decode to something"

    def test_user_text_never_becomes_a_special_token(self, tokenizer: Tokenizer) -> None:
        """Not even where it spells one; the unknown token alone may stand for what has no other."""
        forbidden = set(tokenizer.special_tokens.values()) - {tokenizer.role_token("unk")}
        for text in self.texts(tokenizer):
            leaked = forbidden & set(tokenizer.encode(text))
            assert not leaked, f"encode({text!r}) gives the special ids {sorted(leaked)}: read none unless asked to"

    def test_special_tokens_are_read_where_they_are_asked_for(self, tokenizer: Tokenizer) -> None:
        """All of them, or those named and no others."""
        for text, token in tokenizer.special_tokens.items():
            for wanted in ("all", frozenset({text})):
                ids = tokenizer.encode(text, wanted)
                assert token in ids, f"encode({text!r}, {wanted!r}) gives {ids}, without {token}"
            others = frozenset(tokenizer.special_tokens) - {text}
            ids = tokenizer.encode(text, others)
            read = token in ids and token != tokenizer.role_token("unk")
            assert not read, f"encode({text!r}) gives its special id though only others are asked for"
            shown = tokenizer.decode([token], skip_specials=True)
            assert not shown, f"decode([{token}], skip_specials=True) shows {shown!r}"

    def test_added_tokens_can_be_kept_out_of_texts(self, tokenizer: Tokenizer) -> None:
        """Where it has `with_control_tokens`: they become special, and "all" reads them as before."""
        if not (isinstance(tokenizer, ControlTokens) and isinstance(tokenizer, AddedTokens)):
            return
        plain = [text for text in tokenizer.added_tokens if text not in tokenizer.special_tokens][:5]
        other = tokenizer.with_control_tokens(plain)
        for text in plain:
            token = tokenizer.added_tokens[text]
            assert other.special_tokens.get(text) == token, f"with_control_tokens({plain}) leaves out {text!r}"
            assert token not in other.encode(f"a{text}b"), f"{text!r} is read out of a user's text"
            assert text not in tokenizer.special_tokens, (
                "with_control_tokens changes the tokenizer that it is called on"
            )
        for text in [*self.texts(tokenizer), *(f"a{text} b" for text in plain)]:
            assert other.encode(text, "all") == tokenizer.encode(text, "all"), f"{text!r}: other ids with 'all'"

    def test_a_batch_is_its_texts_one_by_one(self, tokenizer: Tokenizer) -> None:
        """With special tokens and without."""
        texts = ["", *self.texts(tokenizer)]
        for specials in _choices(tokenizer):
            alone = [tokenizer.encode(text, specials) for text in texts]
            assert tokenizer.encode_batch(texts, specials) == alone, f"encode_batch differs from encode, {specials=}"

    def test_it_cuts_where_it_says_that_it_does(self, tokenizer: Tokenizer) -> None:
        """A tokenizer that tells where it cuts every text encodes the parts alone as in the text."""
        if not isinstance(tokenizer, CertainCuts):
            pytest.skip("it does not tell where it cuts")
        for text in self.texts(tokenizer):
            whole = tokenizer.encode(text)
            places = [at for at in range(1, len(text)) if tokenizer.cuts_between(text[at - 1], text[at])]
            for place in places[:20]:
                parts = tokenizer.encode(text[:place]) + tokenizer.encode(text[place:])
                assert parts == whole, f"{text[:place]!r} and {text[place:]!r} are encoded otherwise alone"

    def test_a_pair_of_texts_is_put_together_of_ids_and_types(self, tokenizer: Tokenizer) -> None:
        """A tokenizer that tells how it joins two texts names ids of its own, and a type for each token."""
        if not isinstance(tokenizer, JoinsPairs):
            pytest.skip("it does not tell how it joins two texts")
        first, second = tokenizer.encode("say 12"), tokenizer.encode("and 3")
        ids, types = tokenizer.pair_layout.of(first, second)
        assert len(ids) == len(types) == len(first) + len(second) + tokenizer.pair_layout.added, "a type is missing"
        assert all(0 <= id < tokenizer.vocab_size for id in ids), "an id of no token"
        assert all(isinstance(type, int) and type >= 0 for type in types), "a type that is no number from 0"

    def test_offsets_say_where_each_token_stands(self, tokenizer: Tokenizer) -> None:
        """Inside the text, in order, and covering it where no character is lost."""
        if not tokenizer.capabilities.offsets:
            return
        for text in self.texts(tokenizer):
            encoding = tokenizer.encode_offsets(text)
            assert encoding.ids == tokenizer.encode(text), f"encode_offsets({text!r}) gives other ids than encode"
            spans = encoding.offsets
            assert len(spans) == len(encoding.ids), f"encode_offsets({text!r}): not one place for each id"
            assert all(0 <= a <= b <= len(text) for a, b in spans), f"{text!r}: offsets outside the text: {spans}"
            assert spans == sorted(spans), f"{text!r}: offsets are not in order: {spans}"
            missing = set(range(len(text))) - {place for a, b in spans for place in range(a, b)}
            lossless = tokenizer.capabilities.lossless_unicode
            assert not (lossless and missing), f"{text!r}: no token stands at {sorted(missing)[:5]}"

    def test_a_stream_is_the_text_at_every_cut(self, tokenizer: Tokenizer) -> None:
        """And never shows half a character. What becomes of one that stays half is a format's own affair."""
        declared = tokenizer.capabilities
        for text in self.texts(tokenizer)[:40]:
            ids = tokenizer.encode(text, "all")
            for cut in range(len(ids) + 1):
                shown, end = _streamed(tokenizer, ids[:cut])
                expected = tokenizer.decode(ids[:cut])
                equal = shown + end == expected or ("\ufffd" in expected and not declared.lossless_bytes)
                assert equal, f"{ids[:cut]} stream as {shown + end!r} and decode as {expected!r}"
                whole = text.startswith(shown) or not declared.lossless_unicode
                assert whole, f"the stream of {text!r} shows {shown!r}: hold bytes back until a character is whole"

    def test_every_id_stands_for_bytes(self, tokenizer: Tokenizer) -> None:
        """An id that no token has is an IndexError, inside the vocabulary and beyond it."""
        size = tokenizer.vocab_size
        known = [token for token in range(size) if _bytes_of(tokenizer, token) is not None]
        assert known[-1:] == [size - 1], f"vocab_size is {size}, but the highest id is {known[-1:]}"
        for token in (size, size + 1000, -1, 2**40):
            assert _bytes_of(tokenizer, token) is None, f"token_bytes({token}) must raise IndexError: {size=}"
        used = set(tokenizer.special_tokens.values())
        for text in self.texts(tokenizer):
            ids = tokenizer.encode(text, "all")
            used |= set(ids)
            joined = b"".join(tokenizer.token_bytes(token) for token in ids)
            assert tokenizer.decode_bytes(ids) == joined, f"decode_bytes({ids}) is not the bytes of its ids"
        assert used <= set(known), f"the ids {sorted(used - set(known))[:5]} are used but stand for no bytes"

    def test_every_process_gives_the_same_ids(self, tokenizer: Tokenizer, sample: Path) -> None:
        """Whatever PYTHONHASHSEED is; and none of them loads torch for it."""
        texts = self.texts(tokenizer)
        expected = [tokenizer.encode(text) for text in texts]
        for seed in ("0", "1", "2"):
            found = call_fresh(f"{_ERRANDS}:tokenize", self.choice.facts(), str(sample), texts, PYTHONHASHSEED=seed)
            assert found["ids"] == expected, f"with PYTHONHASHSEED={seed} texts become other ids"
            same = found["fingerprint"] == tokenizer.fingerprint
            assert same, f"with PYTHONHASHSEED={seed} the fingerprint is another: sort what it is made of"
            heavy = set(found["heavy"]) - {"tokenizers"}
            assert not heavy, f"loading a tokenizer loads {', '.join(heavy)}: rows are judged before that is needed"

    def test_it_is_saved_and_loaded_byte_by_byte(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        """In every format that can hold it, and in the first one always, with the same ids and the same fingerprint."""
        formats = self.make().formats
        assert formats, "formats is empty: name what save() can write"
        for format in formats:
            first, second = tmp_path / f"{format}-1", tmp_path / f"{format}-2"
            first.mkdir()
            second.mkdir()
            if not _saved(tokenizer, first, format, refusable=format != formats[0]):
                continue
            again = self.load(first)
            again.save(second, format)
            assert files_in(first) == files_in(second), f"saving in {format} what was loaded from it writes other files"
            assert again.fingerprint == tokenizer.fingerprint, f"the fingerprint is another after saving in {format}"
            self._check_same(tokenizer, again, f"after saving in {format}")

    def test_it_carries_another_chat_template(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        """With the same ids, through every format that can hold it; and it is left as it was itself."""
        before = tokenizer.chat_template
        for number, template in enumerate(_TEMPLATES):
            other = tokenizer.with_chat_template(_TEMPLATES[not number]).with_chat_template(template)
            assert other.chat_template == template, f"with_chat_template({template!r}) gives {other.chat_template!r}"
            assert other.fingerprint == tokenizer.fingerprint, "a chat template decides no id: the fingerprint stays"
            self._check_same(tokenizer, other, "with another chat template")
            for format in self.make().formats:
                folder = tmp_path / f"{format}-{number}"
                folder.mkdir()
                if _saved(other, folder, format, refusable=format != self.make().formats[0]):
                    kept = self.load(folder).chat_template
                    assert kept == template, f"the chat template {template!r} is saved in {format} as {kept!r}"
        assert tokenizer.chat_template == before, "with_chat_template must leave the tokenizer as it is"

    def test_save_writes_its_own_format_unless_told_otherwise(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        """Runs and exports save without naming one."""
        folder = tmp_path / "saved"
        folder.mkdir()
        tokenizer.save(folder)
        assert self.load(folder).fingerprint == tokenizer.fingerprint, "save(folder) writes what load can't read back"

    def test_copies_and_threads_give_the_same_ids(self, tokenizer: Tokenizer) -> None:
        """Pickled, copied, and asked by many threads at once with different specials."""
        for what, other in (
            ("pickling", pickle.loads(pickle.dumps(tokenizer))),
            ("copy.copy", copy.copy(tokenizer)),
            ("copy.deepcopy", copy.deepcopy(tokenizer)),
        ):
            self._check_same(tokenizer, other, f"after {what}")
        asked = [(text, specials) for text in self.texts(tokenizer) for specials in _choices(tokenizer)]
        expected = [tokenizer.encode(*question) for question in asked]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda question: tokenizer.encode(*question), asked))
        assert found == expected, "threads that ask for different specials at once get other ids"

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_child_processes_give_the_same_ids(self, tokenizer: Tokenizer, sample: Path, method: str) -> None:
        """Forked after it was used, or started anew with it pickled."""
        if method not in multiprocessing.get_all_start_methods():
            pytest.skip(f"this system does not {method}")
        texts = self.texts(tokenizer)
        found = call_fresh(f"{_ERRANDS}:tokenize_in_children", self.choice.facts(), str(sample), method, texts)
        assert found == [tokenizer.encode(text) for text in texts], f"a child process made by {method} gives other ids"

    def _check_same(self, tokenizer: Tokenizer, other: Tokenizer, when: str) -> None:
        for text in self.texts(tokenizer):
            assert other.encode(text) == tokenizer.encode(text), f"{when} {text!r} becomes other ids"


_ERRANDS = "graftkit.testing.errands"

_TEMPLATES = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    "{%- for message in messages %}\n{{ message['role'] + ': ' + message['content'] }}é\n{% endfor -%}\n",
)


def _spelling(tokenizer: Tokenizer) -> list[str]:
    """Returns texts that spell special tokens, alone and inside other text."""
    return [around for text in tokenizer.special_tokens for around in (text, f"a{text}b", f" {text} ", text * 3)]


def _choices(tokenizer: Tokenizer) -> list[Specials]:
    return ["none", "all", *(frozenset({text}) for text in list(tokenizer.special_tokens)[:2])]


def _check_comes_back(tokenizer: Tokenizer, text: str) -> None:
    __tracebackhide__ = True
    ids = tokenizer.encode(text)
    shown, declared = text[:40], tokenizer.capabilities
    odd = [token for token in ids if not 0 <= token < tokenizer.vocab_size]
    assert not odd, f"{shown!r} becomes the ids {odd[:5]}, beyond vocab_size {tokenizer.vocab_size}"
    if declared.lossless_unicode and tokenizer.decode(ids) != text:
        pytest.fail(f"{_first_difference(text, tokenizer.decode(ids))}: it declares lossless_unicode")
    if declared.lossless_bytes and tokenizer.decode_bytes(ids) != text.encode():
        pytest.fail(f"decode_bytes does not give back the UTF-8 of {shown!r}: it declares lossless_bytes")


def _first_difference(text: str, found: str) -> str:
    place = next((n for n, (a, b) in enumerate(zip(text, found, strict=False)) if a != b), min(len(text), len(found)))
    return f"{text[place : place + 8]!r} comes back as {found[place : place + 8]!r}"


def _streamed(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, str]:
    """Returns what a stream shows as the ids come, and what it shows at the end."""
    stream = tokenizer.stream_decoder()
    return "".join(stream.push(token) for token in ids), stream.finish()


def _bytes_of(tokenizer: Tokenizer, token: int) -> bytes | None:
    found = bytes_of(tokenizer, token)
    assert found is None or isinstance(found, bytes), f"token_bytes({token}) returned {type(found).__name__}"
    return found


def _saved(tokenizer: Tokenizer, folder: Path, format: str, *, refusable: bool) -> bool:
    """Tells whether a tokenizer was saved in a format; a refusal leaves nothing behind."""
    try:
        tokenizer.save(folder, format)
    except RequestError as error:
        assert refusable, f"save must write any tokenizer in {format}, the first of its formats; it says: {error}"
        assert not files_in(folder), f"save refuses {format}, but has written {', '.join(files_in(folder))}"
        return False
    return True


def files_in(folder: Path) -> dict[str, bytes]:
    """Returns the files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
