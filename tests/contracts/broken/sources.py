"""Model sources that break one promise each and keep the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graftkit_models.huggingface import HuggingFaceFolder, HuggingFaceSource


class HeldFolder(HuggingFaceFolder):
    def read(self) -> Any:
        tensors = dict(super().read())
        yield from tensors.items()


class HoldsEverything(HuggingFaceSource):
    def open(self, reference: str) -> HuggingFaceFolder:
        opened = super().open(reference)
        return HeldFolder(reference, opened.folder, opened.config, opened.tensors, opened.places)


class AcceptsEverything(HuggingFaceSource):
    def accepts(self, reference: str) -> bool:
        return True


class RaisesWhateverComes(HuggingFaceSource):
    def open(self, reference: str) -> HuggingFaceFolder:
        Path(reference).stat()
        return super().open(reference)


class ImportsTorchToOpen(HuggingFaceSource):
    def open(self, reference: str) -> HuggingFaceFolder:
        import torch

        assert torch.Tensor
        return super().open(reference)
