"""Figures as texts, the same way wherever they are shown."""

from __future__ import annotations

__all__ = ["number_text", "score_text"]


def number_text(value: float | None) -> str:
    """Returns a loss with four digits after the point; "-" where there is none."""
    return "-" if value is None else f"{value:.4f}"


def score_text(value: float | None) -> str:
    """Returns a score: a share in percent where it may be one."""
    return f"{value:.1%}" if value is not None and 0 <= value <= 1 else number_text(value)
