"""Runs llama.cpp, through xllamacpp, on a GGUF file: what it computes, and how it reads and lays out text."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

__all__ = ["LlamaCpp"]

_LIKELIEST = 256
_LEAST_SHARE = 1e-37
"""Below it float32 has fewer digits, and then none."""
_PATIENCE = 900
"""Seconds after which an answer is not awaited any more: a server that is stuck must not hold a run for ever."""


class LlamaCpp:
    """llama.cpp's server, in this process, with a float32 cache and without flash attention: nothing else rounds.

    It computes in as many threads as torch: its own choice ignores OMP_NUM_THREADS, and threads without a core of their
    own wait for one another in loops, which takes a hundred times as long for a small model.

    Args:
        model: The GGUF file.
        context: Tokens of a sequence at most.
        adapter: A GGUF adapter to put on it, or None.
        template: The chat template; the file's own when empty.
        wholes: Whether something is said of whole sequences, their scores or a vector, rather than of next tokens.
    """

    def __init__(
        self, model: Path, context: int, adapter: Path | None = None, *, template: str = "", wholes: bool = False
    ) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.chat_template = template
        if adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        params.n_ctx = context
        if wholes:
            params.embedding = True
            params.n_batch = params.n_ubatch = context  # such a sequence is not cut
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        params.port = 0
        params.verbosity = -1
        params.warmup = False
        params.fit_params = False
        params.cache_ram_mib = 0
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)
        address = self._server.listening_address.removeprefix("http://")
        self._connection = http.client.HTTPConnection(address, timeout=_PATIENCE)
        self._get("/slots")  # answered by the loop that computes: a server that ends before it runs waits for ever

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server."""
        self._connection.close()
        del self._server

    def tokens(self, text: str, *, whole: bool = False, specials: bool = True) -> list[int]:
        """Returns a text's token ids.

        Args:
            text: The text.
            whole: Whether tokens are put before and after it, as the file says.
            specials: Whether special tokens in it are read as such.
        """
        found: list[int] = self._post("/tokenize", content=text, parse_special=specials, add_special=whole)["tokens"]
        return found

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text that ids stand for."""
        found: str = self._post("/detokenize", tokens=list(ids))["content"]
        return found

    def rendered(self, conversation: Sequence[dict[str, str]]) -> str:
        """Returns a conversation as the file's chat template lays it out, with the prompt of the answer."""
        text: str = self._post("/apply-template", messages=list(conversation))["prompt"]
        return text

    def ends_at(self, id: int) -> bool:
        """Tells whether generating ends at a token: it is made to take it next.

        Args:
            id: The token.
        """
        answer = self._post("/completion", prompt=self.tokens("a"), n_predict=2, samplers=[], logit_bias=[[id, 1e9]])
        return bool(answer["stop_type"] == "eos")

    def log_probabilities(self, ids: Sequence[int], positions: Sequence[int], vocabulary: int) -> torch.Tensor:
        """Returns the log-probabilities of the likeliest next tokens, `[positions, vocabulary]`, float32.

        The others are NaN: llama.cpp answers in JSON, and a whole vocabulary takes seconds. Each is normalized by the
        whole vocabulary all the same.

        Args:
            ids: The sequence.
            positions: Those after which tokens are predicted, ascending.
            vocabulary: How many tokens there are.
        """
        found = torch.full((len(positions), vocabulary), torch.nan)
        # The server gives no probabilities where the next token ends the answer or a part of a character. So it is made
        # to take a letter next; the probabilities that it gives are those of before that.
        letter = self.tokens("a")[0]
        for row, position in enumerate(positions):
            answer = self._post(
                "/completion",
                prompt=list(ids[: position + 1]),
                n_predict=1,
                n_probs=min(_LIKELIEST, vocabulary),
                cache_prompt=True,
                temperature=-1.0,
                samplers=[],
                logit_bias=[[letter, 1e9]],
            )
            likely = answer["completion_probabilities"][0]["top_logprobs"]
            index = torch.tensor([token["id"] for token in likely])
            found[row, index] = torch.tensor([token["logprob"] for token in likely])
        return found

    def log_shares(self, ids: Sequence[int]) -> torch.Tensor:
        """Returns the logarithm of the softmax of a sequence's scores, `[1, labels]`, float32; NaN for a share of 0.

        Args:
            ids: The sequence.
        """
        shares = self.vector(ids)
        return shares.masked_fill(shares < _LEAST_SHARE, torch.nan).log()

    def log_shares_of_scores(self, ids: Sequence[int]) -> torch.Tensor:
        """Returns the same of a model whose scores llama.cpp gives as they are.

        Args:
            ids: The sequence.
        """
        return self.vector(ids).log_softmax(-1)

    def vector(self, ids: Sequence[int]) -> torch.Tensor:
        """Returns a sequence's vector, `[1, hidden]`, float32, which is not brought to a length of 1.

        Args:
            ids: The sequence.
        """
        [answer] = self._post("/embedding", content=list(ids), embd_normalize=-1)
        return torch.tensor(answer["embedding"])

    def _post(self, route: str, **request: Any) -> Any:
        self._connection.request("POST", route, json.dumps(request), {"Content-Type": "application/json"})
        return self._answer(route)

    def _get(self, route: str) -> Any:
        self._connection.request("GET", route)
        return self._answer(route)

    def _answer(self, route: str) -> Any:
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"llama.cpp refused {route}: {json.dumps(answer)[:300]}")
        return answer
