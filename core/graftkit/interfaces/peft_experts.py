"""LoRA on a mixture's experts as PEFT stores it: one pair of matrices for all experts of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["ExpertLayout"]

_A, _B = "lora_A.weight", "lora_B.weight"


_MOST_EXPERTS = 10_000


@dataclass(frozen=True, slots=True)
class ExpertLayout:
    """Where PEFT keeps the LoRA of a stack of experts, and which way round: see `peft.tuners.lora.ParamWrapper`.

    PEFT multiplies `B A` for each expert, and adds that to the expert's matrix as the stack holds it, or its transpose.
    Here `A [rank, in]` and `B [out, rank]` belong to the matrix `[out, in]`, whatever the stack holds. Where the two
    differ, PEFT's `A` is `B^T` and its `B` is `A^T`. An export's manifest has it under `expert_layouts`, by the stack's
    path: so `toolkit generate` finds each expert's tensors again.

    Attributes:
        prefix: What the names of the stack's tensors in `adapter_model.safetensors` begin with.
        experts: How many experts there are.
        swapped: Whether `A` and `B` change places.
    """

    prefix: str
    experts: int
    swapped: bool

    @property
    def names(self) -> tuple[str, str]:
        """The names of the stack's tensors."""
        return f"{self.prefix}.{_A}", f"{self.prefix}.{_B}"

    def stacked(self, experts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Returns PEFT's tensors of a stack.

        Args:
            experts: Each expert's `lora_A.weight [rank, in]` and `lora_B.weight [out, rank]`, in their order.

        Returns:
            By name, `lora_A.weight [experts * rank, in]`, expert by expert, and `lora_B.weight [out, rank * experts]`,
            a rank's columns beside one another; `in` and `out` in each other's place where they are swapped.
        """
        import torch

        pairs = [self._turned(expert) for expert in experts]
        return {
            f"{self.prefix}.{_A}": torch.cat([pair[_A] for pair in pairs]).contiguous(),
            f"{self.prefix}.{_B}": torch.stack([pair[_B] for pair in pairs], dim=-1).flatten(1).contiguous(),
        }

    def split(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """Yields what `stacked` was given, of an adapter's tensors.

        Raises:
            KeyError: A tensor of the stack is missing.
            ValueError: A tensor can't be shared out among so many experts.
        """
        a, b, experts = tensors[f"{self.prefix}.{_A}"], tensors[f"{self.prefix}.{_B}"], self.experts
        if (
            not 1 <= experts <= _MOST_EXPERTS
            or a.ndim != 2
            or b.ndim != 2
            or not len(a)
            or len(a) % experts
            or b.shape[1] != len(a)
        ):
            raise ValueError(f"{self.prefix} has LoRA of shapes {list(a.shape)}, {list(b.shape)} for {experts} experts")
        for own_a, own_b in zip(a.chunk(experts), b.reshape(len(b), -1, experts).unbind(-1), strict=True):
            yield self._turned({_A: own_a, _B: own_b})

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return {"prefix": self.prefix, "experts": self.experts, "swapped": self.swapped}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ExpertLayout:
        """Returns what `to_json` gave.

        Raises:
            KeyError: A part is missing.
        """
        return cls(str(data["prefix"]), int(data["experts"]), bool(data["swapped"]))

    def _turned(self, pair: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if not self.swapped:
            return dict(pair)
        return {_A: pair[_B].T, _B: pair[_A].T}
