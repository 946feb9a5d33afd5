"""What a plugin's registration hooks return."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Provider", "import_target"]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_NAME = 100
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Provider:
    """One named implementation that a plugin offers.

    Args:
        name: What a recipe says: lower-case letters, digits and single hyphens, 100 characters at most.
        target: The class, as "package.module:Class"; imported only when a recipe chooses it.
        summary: One line for `toolkit plugins`.
        config: The class of its own recipe fields, a `ProviderConfig`, as "package.module:Class". It must be
            importable without torch, since recipes are judged before torch is loaded. Left out: no fields.
        requires: Import names that the target needs beyond graftkit's own; probed without importing them.
        install_hint: What to type when one of them is missing.
        contract: The contract of its kind with what only this provider needs filled in, such as a sample to load,
            as "package.module:Class", for `toolkit plugin check`. Left out: the kind's own contract.

    Raises:
        ValueError: A name or a target of another form.

    Example:
        >>> Provider(name="nf4", target="graftkit_quantizers.nf4:Nf4").name
        'nf4'
    """

    name: str
    target: str
    summary: str = ""
    config: str = ""
    requires: tuple[str, ...] = ()
    install_hint: str = ""
    contract: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name) and len(self.name) <= _LONGEST_NAME):
            raise ValueError(
                f"provider name {self.name!r:.80}: use lower-case letters, digits and single hyphens, "
                f"{_LONGEST_NAME} characters at most"
            )
        for field, value in (("target", self.target), ("config", self.config), ("contract", self.contract)):
            if value and not _TARGET.fullmatch(value):
                raise ValueError(f"provider {self.name!r}: {field} {value!r} is not of the form package.module:Class")
        if not self.target:
            raise ValueError(f"provider {self.name!r} has no target")
        if isinstance(self.requires, str):
            raise ValueError(f"provider {self.name!r}: requires is a tuple of import names, not a string")


def import_target(target: str) -> Any:
    """Returns what "package.module:Class" names; whatever importing that module raises is raised.

    Raises:
        ImportError: There is no such module.
        AttributeError: The module has no such name.
    """
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
