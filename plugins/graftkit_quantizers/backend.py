"""Imports bitsandbytes without its remark that an optional kernel package is missing."""

from __future__ import annotations

import logging

__all__ = ["bnb"]

_log = logging.getLogger("bitsandbytes.backends.cpu.ops")
_level = _log.level
_log.setLevel(logging.ERROR)
import bitsandbytes.functional as bnb  # noqa: E402

_log.setLevel(_level)
