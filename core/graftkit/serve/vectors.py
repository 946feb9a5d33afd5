"""The vectors of a request's texts, and how they are sent."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from graftkit.errors import RequestError
from graftkit.flow.answering.answer_reader import AnswerReader
from graftkit.serve.api_error import invalid

if TYPE_CHECKING:
    import torch

    from graftkit.flow.answering.reloaded_head import HeadModel
    from graftkit.flow.answering.reloaded_model import LayOut
    from graftkit.serve.requests import EmbeddingRequest

__all__ = ["Vectors", "listed"]


class Vectors:
    """The vectors of some texts, which are computed as it is iterated over; like a `Reply` it is read piece by piece.

    Args:
        model: The model.
        asked: The texts, and how long vectors are to be.
        lay_out: Makes tokens of a long text within limits.

    Attributes:
        found: The vectors so far, each of the length 1.
        prompt_tokens: The tokens of their texts.
    """

    tokens, stopped = 0, "stop"

    def __init__(self, model: HeadModel, asked: EmbeddingRequest, lay_out: LayOut) -> None:
        self.found: list[torch.Tensor] = []
        self.prompt_tokens, self.reader = 0, AnswerReader()
        self._pieces = self._made(model, asked, lay_out)

    def _made(self, model: HeadModel, asked: EmbeddingRequest, lay_out: LayOut) -> Iterator[str]:
        from torch.nn.functional import normalize

        for number, text in enumerate(asked.texts):
            try:
                vector, tokens = model.embed(text, lay_out)
            except RequestError as error:
                where = f"input[{number}]" if len(asked.texts) > 1 else "input"
                raise invalid(where, f"{where}: {error.message}") from None
            if asked.dimensions is not None and asked.dimensions > len(vector):
                told = f"dimensions is {asked.dimensions}; the model's vectors have {len(vector)} numbers"
                raise invalid("dimensions", told)
            self.found.append(normalize(vector[: asked.dimensions], dim=0))
            self.prompt_tokens += tokens
            yield ""

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Ends between two texts."""


def listed(vectors: Vectors, name: str, *, as_base64: bool) -> dict[str, Any]:
    """Returns what is answered, as OpenAI's API has it.

    Args:
        vectors: The vectors, computed.
        name: What the model is called.
        as_base64: Whether numbers are sent as the bytes of float32, in base64.
    """
    encode: Callable[[torch.Tensor], Any] = _base64 if as_base64 else _numbers
    data = [
        {"object": "embedding", "index": number, "embedding": encode(vector)}
        for number, vector in enumerate(vectors.found)
    ]
    usage = {"prompt_tokens": vectors.prompt_tokens, "total_tokens": vectors.prompt_tokens}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def _base64(vector: torch.Tensor) -> str:
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()


def _numbers(vector: torch.Tensor) -> Sequence[float]:
    numbers: list[float] = vector.tolist()
    return numbers
