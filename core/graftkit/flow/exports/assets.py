"""What an export must load besides its weights: tokenizer, chat template, generation settings, stop tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.corpus.turns import with_content_in_parts
from graftkit.errors import DataError
from graftkit.flow.base_files.open_model import added_tokens
from graftkit.flow.folders.refused_files import refuse_bad_tokenizers
from graftkit.host.records import shortened
from graftkit.interfaces.architecture import token_types
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.exporter import ANY, LoadedAssets, added_ids, decoded, role_ids
from graftkit.interfaces.tokenizer import ROLES, JoinsPairs, Tokenizer
from graftkit.visible import one_line

__all__ = ["ExpectedAssets", "covered", "differences", "expected_assets", "tokens_of_base_differ"]

_TEXTS, _CHARACTERS, _SPECIALS = 24, 2000, 32
"""Texts of the run that are compared at most, the characters of each, and the special tokens that are tried."""

_IDS, _LINES = 2048, 64
"""Ids whose pieces are compared, about, and how many of them stand in one text."""

_HARD = (
    "",
    " ",
    "  two  spaces   three\t\ttabs\n\n\nlines\r\n ",
    "Yes , it is . Is n't it ? They 're",
    "don't WE'LL I've 12345678 3.14159 1,000,000 x=y+1;//",
    "".join(map(chr, range(32, 127))),
    "def f(x):\n    return [x ** 2 for _ in range(10)]\n",
    "Grüße, naïve cafe\u0301 ﬁ Ⅻ ½",
    "Привет, мир. שלום עולם. مرحبا بالعالم नमस्ते",
    "你好，世界。こんにちは 안녕하세요 ไทย",
    "🙂👩‍👩‍👧‍👦🇩🇪✌🏽 \u200b\ufeff\u00a0",
)

_CONVERSATIONS = tuple(
    [{"role": role, "content": content} for role, content in turns]
    for turns in (
        [
            ("system", "Answer  briefly."),
            ("user", "2 + 2 =  ? Grüße 🙂"),
            ("assistant", "4\n\n  four"),
            ("user", "3 + 3?"),
        ],
        [("user", "2 + 2 =  ? Grüße 🙂"), ("assistant", "4\n\n  four"), ("user", "3 + 3?")],
        [("user", "2 + 2 =  ? Grüße 🙂")],
    )
)
"""The first that a template takes is compared: some refuse a system message, or a second turn."""

_OF_A_FILE = ("transformers_version", "_from_model_config", "_name_or_path", "torch_dtype", "dtype")
"""What a generation_config.json says of itself and of the program that wrote it."""


@dataclass(frozen=True, slots=True)
class ExpectedAssets:
    """What is asked of an export's program, and what the run itself answers.

    Attributes:
        texts: Texts of the run and hard ones.
        tokens: Their token ids.
        conversation: Messages.
        rendered: What the run's chat template makes of them; None where there is none, or it takes no conversation.
        today: The day that the template writes, as ISO date, or None.
        generation: The generation settings, without the tokens that end an answer.
        stop_tokens: Those.
        roles: The ids of the tokenizer's special tokens by role; None for a role that it has no token for. Roles that
            a class of transformers fills in where the tokenizer has none are left out. None in what was written before
            that was compared.
        added: The ids that are put before and after a text, as transformers loads the run's own tokenizer; None where
            it can't.
        config_roles: The ids by role in the configuration of what was trained.
        arguments: What the chat template is given besides the conversation.
        template: The name of the chat template, where it is one of several; None for the default.
        decoded: The text that transformers makes of each list of those ids by the run's own tokenizer, special tokens
            left out; None for one of which it makes others beside the model's configuration, and None for all where it
            can't load the tokenizer, or in what was written before that was compared.
        unsaid: The generation settings that transformers makes of that configuration where there are no others.
        asked: How the model was asked in training, as `ExportManifest.asked` says it; None in what was written before
            that was compared.
        pair: The ids of a pair of texts, `ANY` twice, and their types, or the ids alone for a model that has no
            embeddings of types; None where it was not trained on pairs.
    """

    texts: Sequence[str]
    tokens: Sequence[Sequence[int]]
    conversation: Sequence[Mapping[str, Any]]
    rendered: str | None
    today: str | None
    generation: Mapping[str, Any]
    stop_tokens: Sequence[int]
    roles: Mapping[str, Any] | None = None
    added: Sequence[Sequence[int]] | None = None
    config_roles: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    decoded: Sequence[str | None] | None = None
    asked: Mapping[str, Any] | None = None
    pair: Sequence[Sequence[int]] | None = None

    @property
    def date(self) -> date | None:
        """The day that the template writes."""
        return date.fromisoformat(self.today) if self.today else None

    def to_json(self) -> str:
        """Returns it as JSON, ASCII alone."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ExpectedAssets:
        """Reads what `to_json` gave.

        Raises:
            ValueError: It is something else.
            RecursionError: It is nested too deeply.
        """
        found = _validator().validate_json(text)
        _ = found.date
        if len(found.texts) != len(found.tokens):
            raise ValueError("there are not as many lists of tokens as texts")
        return found


@cache
def _validator() -> TypeAdapter[ExpectedAssets]:
    """Made once: that takes longer than what it validates."""
    return TypeAdapter(ExpectedAssets)


def expected_assets(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    today: date | None = None,
    options: ChatOptions | None = None,
    generation: Mapping[str, Any] | None = None,
    stop_tokens: Sequence[int] = (),
    saved: Path | None = None,
    config: Any | None = None,
    asked: Mapping[str, Any] | None = None,
    pairs: bool = False,
) -> ExpectedAssets:
    """Asks the tokenizer that was trained with.

    Args:
        tokenizer: The tokenizer, which carries the chat template.
        texts: The run's own texts; the first ones are taken.
        today: The day that the template writes.
        options: How conversations are laid out.
        generation: The generation settings that exports are given.
        stop_tokens: The tokens that end an answer.
        saved: Where the tokenizer lies as it was saved, for transformers to load.
        config: transformers' configuration of what was trained.
        asked: How the model was asked in training.
        pairs: Whether it was trained on pairs of texts.
    """
    loaded = _as_transformers_loads_it(saved) if saved else None
    beside = _as_transformers_loads_it(saved, config) if saved and config else loaded
    compared = [*_HARD, *_around_specials(tokenizer), *_pieces(tokenizer), *_sample(texts)]
    conversation, rendered = _rendered(tokenizer, today, options or ChatOptions())
    kept = {key: value for key, value in (generation or {}).items() if key not in (*_OF_A_FILE, "eos_token_id")}
    tokens = tokenizer.encode_batch(compared, "all")
    return ExpectedAssets(
        texts=compared,
        tokens=tokens,
        decoded=_decoded_alike([loaded, beside], tokens),
        conversation=conversation,
        rendered=rendered,
        today=today.isoformat() if today else None,
        arguments=dict(options.arguments) if options else {},
        template=options.template if options else None,
        generation=kept,
        stop_tokens=sorted(stop_tokens),
        roles=_roles(tokenizer, [loaded, beside]),
        added=added_ids(loaded) if loaded is not None else None,
        config_roles=role_ids(config.get_text_config()) if config is not None else None,
        unsaid=_settings_of(config) if config is not None and not generation else {},
        asked=asked,
        pair=_pair(tokenizer, typed=config is not None and token_types(config.to_dict()) > 0) if pairs else None,
    )


def _pair(tokenizer: Tokenizer, *, typed: bool) -> list[list[int]] | None:
    if not isinstance(tokenizer, JoinsPairs):
        return None
    alone = tokenizer.encode(ANY)
    ids, types = tokenizer.pair_layout.of(alone, alone)
    return [ids, types] if typed else [ids]


def _settings_of(config: Any) -> dict[str, Any]:
    """Returns the generation settings that transformers makes of a configuration, as JSON holds them."""
    from transformers import GenerationConfig

    return dict(_plain(GenerationConfig.from_model_config(config).to_dict()))


def _as_transformers_loads_it(folder: Path, config: Any | None = None) -> Any | None:
    """Returns the run's own tokenizer, beside a configuration if given, or None where transformers can't read it."""
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False, local_files_only=True)
    except Exception:  # whatever transformers fails with on a tokenizer that it can't read
        return None


def _roles(tokenizer: Tokenizer, loaded: Sequence[Any | None]) -> dict[str, int | None]:
    """Returns a tokenizer's roles; one that it lacks is None, or left out where transformers fills it in, or may.

    Args:
        tokenizer: The tokenizer.
        loaded: The same as transformers loads it, alone and beside the model's configuration.
    """
    own = {role: tokenizer.role_token(role) for role in ROLES}
    filled = [role_ids(one) if one is not None else dict.fromkeys(ROLES, -1) for one in loaded]
    return {role: id for role, id in own.items() if id is not None or all(one[role] is None for one in filled)}


def _decoded_alike(loaded: Sequence[Any | None], tokens: Sequence[Sequence[int]]) -> list[str | None] | None:
    """Returns the text of each list of ids, None where it depends on what the tokenizer is loaded beside.

    Args:
        loaded: The tokenizer as transformers loads it, alone and beside the model's configuration.
        tokens: The ids.
    """
    if None in loaded:
        return None
    made = zip(*(decoded(one, tokens) for one in loaded), strict=True)
    return [texts[0] if len({*texts}) == 1 else None for texts in made]


def _sample(texts: Iterable[str]) -> Iterator[str]:
    for text in islice(texts, _TEXTS):
        yield text[:_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _pieces(tokenizer: Tokenizer) -> Iterator[str]:
    """Yields texts of what ids spread over the whole vocabulary stand for, a line each."""
    ids = range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // _IDS))
    lines = [_decoded(tokenizer, id) for id in ids]
    for start in range(0, len(lines), _LINES):
        yield "\n".join(lines[start : start + _LINES])


def _decoded(tokenizer: Tokenizer, id: int) -> str:
    try:
        return tokenizer.decode([id])
    except Exception:  # an id that stands for nothing
        return ""


def _around_specials(tokenizer: Tokenizer) -> list[str]:
    """Returns a text for each special and each added token, the latest ones where there are many."""
    known = {**(added_tokens(tokenizer) or {}), **tokenizer.special_tokens}
    names = sorted(known.items(), key=lambda item: item[1])
    return [f"a{name}b {name} c" for name, _ in names[-_SPECIALS:]]


def _rendered(
    tokenizer: Tokenizer, today: date | None, options: ChatOptions
) -> tuple[list[dict[str, Any]], str | None]:
    template = chat_template_of(tokenizer, today, options)
    if template is None:
        return [], None
    for turns in _CONVERSATIONS:
        conversation = with_content_in_parts(turns) if template.takes_content_in_parts else turns
        try:
            return conversation, template.render(conversation, "the proof", add_generation_prompt=True)
        except DataError:
            continue
    return [], None


def covered(expected: ExpectedAssets | None, found: LoadedAssets) -> list[str]:
    """Returns what of an export is compared, logits first, in the words of the proof."""
    parts = ["logits"]
    if expected is None:
        return parts
    parts += ["tokens"] if found.tokens is not None else []
    parts += ["template"] if found.rendered is not None and expected.rendered is not None else []
    parts += ["special tokens"] if _roles_known(expected, found) else []
    parts += ["generation settings"] if found.generation is not None and expected.generation else []
    parts += ["stop tokens"] if found.stop_tokens is not None and expected.stop_tokens else []
    return parts


def _roles_known(expected: ExpectedAssets, found: LoadedAssets) -> bool:
    return None not in (expected.roles, found.roles, expected.added, found.added)


def differences(
    expected: ExpectedAssets,
    found: LoadedAssets,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    said_stops: Sequence[int] | None = None,
    said_asked: Mapping[str, Any] | None = None,
) -> list[str]:
    """Says for each part that differs what the run has and what was loaded.

    Args:
        expected: What the run has.
        found: What was loaded.
        flags: The fields of the export's files tokenizer_config.json, by the file's name.
        said_stops: The tokens that end an answer as the export's manifest says; None where it says none.
        said_asked: How the model was asked in training, as that manifest says.
    """
    return [
        shortened(text)
        for text in (
            _tokens_differ(expected, found.tokens) if found.tokens is not None else "",
            _decoded_differ(expected, found.decoded),
            _template_differs(expected.rendered, found.rendered),
            _roles_differ("special tokens", expected.roles, found.roles),
            _added_differ(expected.added, found.added),
            _pair_differs(expected.pair, found.pair),
            _flags_differ(expected, flags or {}),
            _roles_differ("special tokens in config.json", expected.config_roles, found.config_roles),
            _settings_differ(expected, found.generation) if found.generation is not None else "",
            _stops_differ("stop tokens", expected.stop_tokens, found.stop_tokens),
            _stops_differ("stop tokens of its manifest", expected.stop_tokens, said_stops),
            _asked_differ(expected.asked, said_asked),
        )
        if text
    ]


def tokens_of_base_differ(expected: ExpectedAssets, base: Path) -> str:
    """Says what the base model's own tokenizer gives otherwise than the run's, as transformers loads it; "" if nothing.

    That may be another tokenizer than its tokenizer.json says, where tokenizer_config.json names a class that puts its
    own way of splitting text around a vocabulary.

    Args:
        expected: What the run has.
        base: The base model's folder.
    """
    try:
        refuse_bad_tokenizers(base)
        loaded: Any = _as_transformers_loads_it(base)
        tokens = [loaded(text, add_special_tokens=False)["input_ids"] for text in expected.texts]
        added = added_ids(loaded)
    except Exception:  # whatever there is against one that no export depends on
        return ""
    return "; ".join(differences(expected, LoadedAssets(tokens=tokens, added=added)))


def _tokens_differ(expected: ExpectedAssets, found: Sequence[Sequence[int]]) -> str:
    if len(found) != len(expected.texts):
        return f"token ids: {len(found)} texts are answered, {len(expected.texts)} were asked"
    pairs = zip(expected.texts, expected.tokens, found, strict=True)
    odd = [(text, list(ours), list(theirs)) for text, ours, theirs in pairs if list(ours) != list(theirs)]
    if not odd:
        return ""
    text, ours, theirs = min(odd, key=lambda one: len(one[0]))
    place = _first_other(ours, theirs)
    return (
        f"token ids: {len(odd)} of {len(expected.texts)} texts get others, such as {text[:40]!r}: "
        f"{_few(theirs, place)} where training had {_few(ours, place)}"
    )


def _decoded_differ(expected: ExpectedAssets, found: Sequence[str] | None) -> str:
    if expected.decoded is None or found is None:
        return ""
    if len(found) != len(expected.decoded):
        return f"decoded texts: there are {len(found)}, where {len(expected.decoded)} were asked for"
    pairs = zip(expected.decoded, found, strict=True)
    odd = [(ours, theirs) for ours, theirs in pairs if ours is not None and ours != theirs]
    if not odd:
        return ""
    ours, theirs = min(odd, key=lambda one: len(one[0]))
    place = _first_other(ours, theirs)
    return (
        f"decoded texts: {len(odd)} of {len(found)} lists of token ids give others, such as "
        f"{theirs[place : place + 30]!r} where the run has {ours[place : place + 30]!r}"
    )


def _first_other(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Returns where two sequences begin to differ; 0 where one is the beginning of the other."""
    return next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)


def _few(ids: Sequence[int], place: int) -> str:
    start = max(0, place - 1)
    shown = ", ".join(map(str, ids[start : start + 6]))
    return f"[{'..., ' if start else ''}{shown}{', ...' if start + 6 < len(ids) else ''}]"


def _template_differs(expected: str | None, found: str | None) -> str:
    if expected is None or found is None or expected == found:
        return ""
    if not found:
        return "chat template: none is loaded, though the model was trained with one"
    place = _first_other(expected, found)
    return f"chat template: it writes {found[place : place + 30]!r} where training had {expected[place : place + 30]!r}"


def _asked_differ(expected: Mapping[str, Any] | None, said: Mapping[str, Any] | None) -> str:
    if expected is None or said is None:
        return ""
    odd = [key for key in expected if said.get(key) != expected[key]]
    told = (f"{key} is {_as_json(said.get(key))} in place of {_as_json(expected[key])}" for key in odd)
    return f"how it is asked, by its manifest: {', '.join(told)}" if odd else ""


def _as_json(value: Any) -> str:
    return one_line(json.dumps(value), 60)


def _roles_differ(what: str, expected: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> str:
    if expected is None or found is None:
        return ""
    odd = [role for role in expected if _plain(found.get(role)) != _plain(expected[role])]
    said = ", ".join(f"{role} is {found.get(role)} in place of {expected[role]}" for role in odd)
    return f"{what}: {said}" if odd else ""


def _added_differ(expected: Sequence[Sequence[int]] | None, found: Sequence[Sequence[int]] | None) -> str:
    if expected is None or found is None or [list(ids) for ids in found] == [list(ids) for ids in expected]:
        return ""
    before, after = (list(ids) for ids in found)
    ours = [list(ids) for ids in expected]
    shown, wanted = ([_few(ids, 0) for ids in pair] for pair in ((before, after), ours))
    return f"special tokens: {shown[0]} before a text and {shown[1]} after it, where the run has {' and '.join(wanted)}"


def _pair_differs(expected: Sequence[Sequence[int]] | None, found: Sequence[Sequence[int]] | None) -> str:
    for what, ours, theirs in zip(("ids", "types"), expected or (), found or (), strict=False):
        if list(ours) != list(theirs):
            return f"a pair of texts: its token {what} are {_few(theirs, 0)} in place of {_few(ours, 0)}"
    return ""


def _flags_differ(expected: ExpectedAssets, flags: Mapping[str, Mapping[str, Any]]) -> str:
    """Compares the flags by which llama.cpp's converter and older tokenizer classes put tokens around a text."""
    if expected.added is None or expected.roles is None:
        return ""
    for name, config in flags.items():
        for role, ids, where in zip(("bos", "eos"), expected.added, ("before", "after"), strict=True):
            flag, does = config.get(f"add_{role}_token"), expected.roles.get(role) in ids
            if isinstance(flag, bool) and flag != does:
                puts = "puts" if does else "does not put"
                said = f"add_{role}_token of {name} is {str(flag).lower()}"
                return f"special tokens: {said}, where the run {puts} that token {where} a text"
    return ""


def _settings_differ(ours: ExpectedAssets, found: Mapping[str, Any]) -> str:
    expected, usual = ours.generation, {**_usual_settings(), **ours.unsaid}
    apart = {*_OF_A_FILE, *(f"{role}_token_id" for role in ROLES)}
    more = [key for key in found if key not in expected and key not in apart]
    wanted = {**{key: usual.get(key) for key in more}, **_roles_more(ours, found), **expected}
    odd = [key for key, value in wanted.items() if _plain(found.get(key)) != _plain(value)]
    if not odd:
        return ""
    said = ", ".join(f"{key} is {found.get(key)!r} in place of {wanted[key]!r}" for key in odd[:3])
    return f"generation settings: {said}"


def _roles_more(ours: ExpectedAssets, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, for the roles that generation settings claim beyond the run's, what the configuration has of them.

    Without settings of the run's, transformers takes them from the configuration, which is compared by itself; so are
    the tokens that end an answer.
    """
    keys = {role: f"{role}_token_id" for role in ROLES if role != "eos"}
    if ours.config_roles is None or not ours.generation:
        return {}
    return {key: ours.config_roles.get(role) for role, key in keys.items() if found.get(key) is not None}


def _usual_settings() -> dict[str, Any]:
    """Returns what transformers generates with where nothing is said."""
    from transformers import GenerationConfig

    usual: dict[str, Any] = GenerationConfig().to_dict()
    return usual


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _stops_differ(what: str, expected: Sequence[int], found: Sequence[Any] | None) -> str:
    loaded = {id if isinstance(id, int) else str(id) for id in found or ()}
    if found is None or not expected or loaded == set(expected):
        return ""
    differing = (set(expected) - loaded, loaded - set(expected))
    missing, more = (sorted(ids, key=lambda id: (isinstance(id, str), id)) for ids in differing)
    said = [f"{missing} are missing" if missing else "", f"{more} are not the run's" if more else ""]
    return f"{what}: {' and '.join(text for text in said if text)}"
