"""Keeps secrets out of what is written down or shown: manifests, reports, errors."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["HIDDEN", "names_secret", "without_secret_values", "without_secrets"]

HIDDEN = "***"
"""What stands in the place of a secret."""

_WORDS = frozenset(
    ("token", "secret", "password", "passwd", "passphrase", "credential", "credentials", "apikey", "bearer")
)
_PAIRS = frozenset((first, "key") for first in ("api", "access", "private", "secret", "auth"))
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")

_FORMS = re.compile(
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # the user and password of a URL
    r"|\b(?:hf|ghp|gho|ghs|github_pat|glpat|xoxb|xoxp)[_-][A-Za-z0-9_-]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\bAKIA[A-Z0-9]{16}\b"
)
"""How hubs, forges and clouds write their tokens."""

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
    looks like a token or stands as the password in a URL.
    """
    for secret in _known():
        text = text.replace(secret, HIDDEN)
    return _FORMS.sub(HIDDEN, text)


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
