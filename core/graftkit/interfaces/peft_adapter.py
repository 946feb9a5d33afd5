"""What the config model of an adapter has besides, whose method PEFT has too: so that folders of PEFT's are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

__all__ = ["PeftFields"]


@runtime_checkable
class PeftFields(Protocol):
    """Reads the method's own fields of an `adapter_config.json`, without torch; `Adapter.from_peft` reads the tensors.

    A config model has it as class attributes. Core finds the layers, the modules and the rows that a folder holds
    besides, compares all with the tensors, and asks each adapter in turn whether the rest is its method.

    Attributes:
        peft_prefix: What the names of the method's tensors begin with below a layer's path, as "lora_".
        free_fields: Those of the recipe fields that `from_peft` returns which matter to training alone, as dropout
            does: a recipe that goes on with an adapter may say them otherwise.
    """

    peft_prefix: ClassVar[str]
    free_fields: ClassVar[frozenset[str]]

    @classmethod
    def from_peft(cls, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the recipe fields that mean what PEFT's do, or None where it is another method.

        Args:
            fields: What an `adapter_config.json` says, but for the keys that are not a method's own, such as
                `target_modules`: a stranger's word.

        Raises:
            ValueError: It is this method with an option that the adapter does not have; the message names it.
        """
