"""Model sources that break one promise each and keep the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graftkit_models.huggingface import HuggingFaceFolder, HuggingFaceSource


class OpensAs(HuggingFaceSource):
    folder: type[HuggingFaceFolder]

    def open(self, reference: str) -> HuggingFaceFolder:
        opened = super().open(reference)
        return self.folder(reference, opened.folder, opened.config, opened.stored, opened.matrices, opened.states)


class HeldFolder(HuggingFaceFolder):
    def read(self) -> Any:
        tensors = dict(super().read())
        yield from tensors.items()


class HoldsEverything(OpensAs):
    folder = HeldFolder


class ReadingFolder(HuggingFaceFolder):
    def tensor(self, name: str) -> Any:
        if name not in self.tensors:
            return super().tensor(name)
        return dict(super().read())[name]


class ReadsEverythingForOneTensor(OpensAs):
    folder = ReadingFolder


class SearchingFolder(HuggingFaceFolder):
    def tensor(self, name: str) -> Any:
        for found, tensor in super().read():
            if found == name:
                return tensor
        return super().tensor(name)


class StreamsToOneTensor(OpensAs):
    folder = SearchingFolder


class HalvingFolder(HuggingFaceFolder):
    def tensor(self, name: str) -> Any:
        return super().tensor(name).half()


class GivesOneTensorInAnotherType(OpensAs):
    folder = HalvingFolder


class LookingUpFolder(HuggingFaceFolder):
    def tensor(self, name: str) -> Any:
        return super().tensor(name) if self.tensors[name] else None


class RaisesKeyErrorForATensor(OpensAs):
    folder = LookingUpFolder


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
