"""Keeps secrets out of what is written down or shown: manifests, reports, errors."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["HIDDEN", "names_secret", "without_secret_assignment", "without_secret_values", "without_secrets"]

HIDDEN = "***"
"""What stands in the place of a secret."""

_WORDS = frozenset(
    ("token", "secret", "password", "passwd", "passphrase", "credential", "credentials", "apikey", "bearer")
)
_PAIRS = frozenset((first, "key") for first in ("api", "access", "private", "secret", "auth"))
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")

_USER = re.compile(r"(?<=://)[^/\s:@]+:(?!\d+/)")
"""How a URL begins that may have a password; a number is a port."""

_UP_TO_ITS_END = re.compile(r"[^\s\"'<>]*+")

_FORMS = re.compile(
    r"\b(?:hf|ghp|gho|ghs|github_pat|glpat|xoxb|xoxp)[_-][A-Za-z0-9_-]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b(?::[^\s/@]+)?"
    r"|(?<=\b[Bb]earer )[A-Za-z0-9._~+/=-]{16,}"
)
"""How hubs, forges and clouds write their tokens."""

_PARAMETER = re.compile(r"([?&;])([\w.%-]+)=([^\s&;#\"'<>]+)")
_SIGNATURES = frozenset(("sig", "signature"))
"""What the parameters of a URL are called that open it by themselves, besides those that `names_secret` knows."""

_KEY = re.compile(r"[\w.-]*")

_SHORTEST = 8
"""Characters from which on the value of a variable is taken for a secret: hiding shorter ones would hide words."""


def names_secret(name: str) -> bool:
    """Tells whether a key or variable of this name holds a secret, as its words say.

    Example:
        >>> names_secret("adapter.hub_token"), names_secret("HF_TOKEN"), names_secret("apiKey")
        (True, True, True)
        >>> names_secret("training.tokens_per_step"), names_secret("tokenizer.special_tokens")
        (False, False)
    """
    words = [word.lower() for word in _WORD.findall(name)]
    return not _WORDS.isdisjoint(words) or not _PAIRS.isdisjoint(pairwise(words))


def without_secrets(text: str) -> str:
    """Returns a text with `HIDDEN` in the place of every secret.

    Secrets are the values of environment variables whose names say so, the hub's token where it is stored, and what
    looks like a token, stands as the password in a URL, or is a parameter of one whose name says so. A value is found
    as it is, as Python and JSON quote it, and line by line.
    """
    for secret in sorted(_forms(_known()), key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, HIDDEN)
    return _PARAMETER.sub(_without_parameter, _FORMS.sub(HIDDEN, _without_passwords(text)))


def _without_passwords(text: str) -> str:
    """Hides user and password of each URL, in a time that grows with the text's length alone: anybody's may be told."""
    parts, done, end, last = [], 0, 0, -1
    for found in _USER.finditer(text):
        start = found.end()
        if start >= end:
            end = _UP_TO_ITS_END.match(text, start).end()  # type: ignore[union-attr]  # nothing matches, too
            last = text.rfind("@", start, end)
        if found.start() >= done and last > start:
            parts += [text[done : found.start()], HIDDEN]
            done = last
    return "".join([*parts, text[done:]])


def _without_parameter(found: re.Match[str]) -> str:
    name = found[2]
    secret = names_secret(name) or not _SIGNATURES.isdisjoint(word.lower() for word in _WORD.findall(name))
    return f"{found[1]}{name}={HIDDEN}" if secret else found[0]


def _forms(secrets: Iterable[str]) -> set[str]:
    """Returns the texts in which a secret may stand in a message, or in a file."""
    found = set()
    for secret in secrets:
        lines = [line for line in secret.splitlines() if len(line) >= 2 * _SHORTEST]
        for text in (secret, *lines):
            found |= {text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    return found


def without_secret_assignment(text: str) -> str:
    """Returns KEY=VALUE, as a user typed it, without the value of a key that holds a secret.

    What follows such a key in another form than KEY=VALUE is hidden, too.

    Example:
        >>> without_secret_assignment("hub_token=abc"), without_secret_assignment("api_key: abc")
        ('hub_token=***', 'api_key***')
        >>> without_secret_assignment("training.epochs=3")
        'training.epochs=3'
    """
    key = _KEY.match(text)[0]  # type: ignore[index]
    if not (names_secret(key) or names_secret(text.partition("=")[0])):
        return without_secrets(text)
    rest = text[len(key) :]
    return f"{key}{'=' if rest.startswith('=') else ''}{HIDDEN if rest else ''}"


def without_secret_values(data: Any) -> Any:
    """Returns JSON with `HIDDEN` in the place of every text whose key says that it is a secret."""
    if isinstance(data, Mapping):
        return {
            key: HIDDEN if isinstance(value, str) and names_secret(str(key)) else without_secret_values(value)
            for key, value in data.items()
        }
    return [without_secret_values(value) for value in data] if isinstance(data, list | tuple) else data


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and names_secret(name) and not name.endswith(("_PATH", "_FILE")):
            yield value
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    for path in (os.environ.get("HF_TOKEN_PATH") or Path(home) / "token", Path(home) / "stored_tokens"):
        yield from _stored(Path(path))


def _stored(path: Path) -> tuple[str, ...]:
    """Returns the secrets in a file of the hub's, which is read again only when it has changed."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return _read(path, found.st_ino, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else ()


@lru_cache(maxsize=8)
def _read(path: Path, *version: int) -> tuple[str, ...]:
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ()
    return tuple(word for word in words if len(word) >= 2 * _SHORTEST)
