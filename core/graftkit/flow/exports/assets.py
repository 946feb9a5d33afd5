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
from graftkit.interfaces.architecture import token_types
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.exporter import ANY, added_ids, decoded, role_ids
from graftkit.interfaces.tokenizer import ROLES, JoinsPairs, Tokenizer

__all__ = ["OF_A_FILE", "ExpectedAssets", "as_json", "as_transformers_loads_it", "expected_assets"]

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

OF_A_FILE = ("transformers_version", "_from_model_config", "_name_or_path", "torch_dtype", "dtype")
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
    loaded = as_transformers_loads_it(saved) if saved else None
    beside = as_transformers_loads_it(saved, config) if saved and config else loaded
    compared = [*_HARD, *_around_specials(tokenizer), *_pieces(tokenizer), *_sample(texts)]
    conversation, rendered = _rendered(tokenizer, today, options or ChatOptions())
    kept = {key: value for key, value in (generation or {}).items() if key not in (*OF_A_FILE, "eos_token_id")}
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

    return dict(as_json(GenerationConfig.from_model_config(config).to_dict()))


def as_json(value: Any) -> Any:
    """Returns a value as a JSON file holds it."""
    return json.loads(json.dumps(value, default=str))


def as_transformers_loads_it(folder: Path, config: Any | None = None) -> Any | None:
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
