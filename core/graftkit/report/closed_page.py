"""Pages that load nothing and run nothing, whatever the data in them is: their Content-Security-Policy says so."""

from __future__ import annotations

import base64
import hashlib
import re

__all__ = ["with_policy", "without_style_attributes"]

_STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
_ATTRIBUTE = re.compile(r' style="([^"&<]*)"')
_CHARSET = '<meta charset="utf-8">'


def with_policy(page: str) -> str:
    """Puts a policy into a page: only its own style elements have an effect, and nothing is loaded, run or sent.

    Args:
        page: The page, complete, whose data is escaped, so that every style element in it was written here.

    Source: Content Security Policy Level 3, sections 4.2 (meta), 6.6 (hashes).
    """
    hashes = sorted({f"'sha256-{_digest(style)}'" for style in _STYLE.findall(page)})
    policy = f"default-src 'none'; style-src {' '.join(hashes)}; base-uri 'none'; form-action 'none'"
    meta = f'{_CHARSET}<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return page.replace(_CHARSET, meta, 1)


def _digest(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def without_style_attributes(svg: str) -> str:
    """Returns a drawing whose style attributes are classes of a style element: a policy can name that one's hash.

    Args:
        svg: An `<svg>` element without classes of its own.
    """
    rules: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        name = f"s{hashlib.sha256(found[1].encode()).hexdigest()[:12]}"
        rules[name] = found[1]
        return f' class="{name}"'

    classed = _ATTRIBUTE.sub(named, svg)
    style = "".join(f".{name}{{{rule}}}" for name, rule in rules.items())
    end = classed.index(">") + 1
    return f"{classed[:end]}<style>{style}</style>{classed[end:]}"
