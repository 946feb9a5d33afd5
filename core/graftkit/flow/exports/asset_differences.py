"""Says how what an export loads besides its weights differs from what the run has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftkit.flow.exports.assets import OF_A_FILE, ExpectedAssets, as_json, as_transformers_loads_it
from graftkit.flow.folders.refused_files import refuse_bad_tokenizers
from graftkit.host.records import shortened
from graftkit.interfaces.architecture import Head
from graftkit.interfaces.exporter import LoadedAssets, added_ids
from graftkit.interfaces.tokenizer import ROLES
from graftkit.report.compared_numbers import compared_of
from graftkit.visible import one_line

__all__ = ["covered", "differences", "tokens_of_base_differ"]


def covered(head: Head, expected: ExpectedAssets | None, found: LoadedAssets) -> list[str]:
    """Returns what of an export is compared, in the words of the proof: logits, scores or vectors first."""
    parts = [compared_of(head).name]
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
        loaded: Any = as_transformers_loads_it(base)
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
    told = (f"{key} is {_shown(said.get(key))} in place of {_shown(expected[key])}" for key in odd)
    return f"how it is asked, by its manifest: {', '.join(told)}" if odd else ""


def _shown(value: Any) -> str:
    return one_line(json.dumps(value), 60)


def _roles_differ(what: str, expected: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> str:
    if expected is None or found is None:
        return ""
    odd = [role for role in expected if as_json(found.get(role)) != as_json(expected[role])]
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
    apart = {*OF_A_FILE, *(f"{role}_token_id" for role in ROLES)}
    more = [key for key in found if key not in expected and key not in apart]
    wanted = {**{key: usual.get(key) for key in more}, **_roles_more(ours, found), **expected}
    odd = [key for key, value in wanted.items() if as_json(found.get(key)) != as_json(value)]
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


def _stops_differ(what: str, expected: Sequence[int], found: Sequence[Any] | None) -> str:
    loaded = {id if isinstance(id, int) else str(id) for id in found or ()}
    if found is None or not expected or loaded == set(expected):
        return ""
    differing = (set(expected) - loaded, loaded - set(expected))
    missing, more = (sorted(ids, key=lambda id: (isinstance(id, str), id)) for ids in differing)
    said = [f"{missing} are missing" if missing else "", f"{more} are not the run's" if more else ""]
    return f"{what}: {' and '.join(text for text in said if text)}"
