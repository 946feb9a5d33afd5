"""The keys by which a model's configuration names code, which graftkit neither runs nor hands on."""

from __future__ import annotations

__all__ = ["FOREIGN_CODE"]

FOREIGN_CODE = frozenset({"auto_map", "auto_mapping", "custom_pipelines", "custom_generate", "megatron_config"})
"""Keys that make a library import a module that a model's folder names, or brings."""
