"""The colours of pages, light and dark, and how well they can be told from what they stand on."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DARK", "LIGHT", "SERIES", "contrast", "variables"]

SERIES = 6
"""How many lines of a chart have a colour of their own."""

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "panel": "#f5f6f8",
    "text": "#1b1f24",
    "muted": "#57606a",
    "border": "#d0d7de",
    "good": "#186a2f",
    "bad": "#a11111",
    "notice": "#7a5b00",
    "focus": "#1f5fa8",
    "series-0": "#1f5fa8",
    "series-1": "#b35900",
    "series-2": "#1a7f37",
    "series-3": "#8250df",
    "series-4": "#c2255c",
    "series-5": "#0b7285",
}
"""Name -> colour on a light page, "#rrggbb"."""

DARK: Mapping[str, str] = {
    "page": "#15181c",
    "panel": "#1e2329",
    "text": "#e6e9ed",
    "muted": "#9aa4af",
    "border": "#3a424c",
    "good": "#6fd08c",
    "bad": "#ff8f87",
    "notice": "#e3b341",
    "focus": "#6cb0f5",
    "series-0": "#6cb0f5",
    "series-1": "#f0a050",
    "series-2": "#5ec97b",
    "series-3": "#c297ff",
    "series-4": "#ff8fb8",
    "series-5": "#4fc3d9",
}
"""The same on a dark page."""


def contrast(one: str, other: str) -> float:
    """Returns the contrast ratio of two colours, "#rrggbb": from 1 to 21.

    Source: Web Content Accessibility Guidelines 2.2, "contrast ratio" and "relative luminance".

    Example:
        >>> contrast("#000000", "#ffffff")
        21.0
    """
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def variables() -> str:
    """Returns the colours as CSS variables, the dark ones where the reader prefers dark pages."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        "@media print{:root{color-scheme:light}}"
    )
