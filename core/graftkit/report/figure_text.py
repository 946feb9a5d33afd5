"""Figures as texts, the same way wherever they are shown."""

from __future__ import annotations

__all__ = ["about_time", "number_text", "score_text"]


def about_time(seconds: float) -> str:
    """Returns how long something takes that is only known about.

    Example:
        >>> about_time(0.2), about_time(89), about_time(700)
        ('about 1 s', 'about 89 s', 'about 12 minutes')
    """
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"


def number_text(value: float | None) -> str:
    """Returns a loss with four digits after the point; "-" where there is none."""
    return "-" if value is None else f"{value:.4f}"


def score_text(value: float | None) -> str:
    """Returns a score: a share in percent where it may be one."""
    return f"{value:.1%}" if value is not None and 0 <= value <= 1 else number_text(value)
