"""Answers one after the other: made in a thread of their own, read where the requests are."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from graftkit.arguments import check_number
from graftkit.errors import ContextLengthError, RequestError
from graftkit.flow.answering.answer_reader import AnswerReader
from graftkit.redact import without_secrets
from graftkit.serve.api_error import ApiError, invalid, overloaded, stopping

if TYPE_CHECKING:
    from graftkit.flow.answering.reloaded_head import HeadModel
    from graftkit.flow.answering.reloaded_model import ReloadedModel, Reply
    from graftkit.serve.vectors import Vectors

__all__ = ["Answer", "AnswerQueue", "Ask"]

Ask = Callable[[Any, Callable[[], bool]], "Reply | Vectors"]
"""Lays out a request's prompt, and returns the answer, which is made as its pieces are taken.

Its second argument tells whether nobody wants the answer any more.
"""

_log = logging.getLogger(__name__)


class Answer:
    """An answer that waits, is being made, or is made. Its methods belong to the event loop that made it.

    Args:
        ask: What asks the model.
        model: The model.
    """

    def __init__(self, ask: Ask, model: ReloadedModel | HeadModel) -> None:
        self._ask, self._model = ask, model
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | ApiError | None] = asyncio.Queue()
        self._unwanted = threading.Event()
        self._reply: Reply | Vectors | None = None
        self.made: Future[None] | None = None

    @property
    def vectors(self) -> Vectors:
        """The vectors of a request for these; known from `begun` on."""
        from graftkit.serve.vectors import Vectors

        assert isinstance(self._reply, Vectors)
        return self._reply

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has; known from `begun` on."""
        return self._reply.prompt_tokens if self._reply else 0

    @property
    def tokens(self) -> int:
        """How many tokens have been made."""
        return self._reply.tokens if self._reply else 0

    @property
    def reader(self) -> AnswerReader:
        """What takes reasoning and calls of functions out of its text; known from `begun` on."""
        return self._reply.reader if self._reply else AnswerReader()

    @property
    def finish_reason(self) -> str:
        """Why it ended, as OpenAI's API says it."""
        return "length" if self._reply and self._reply.stopped == "length" else "stop"

    async def begun(self) -> None:
        """Returns once its turn has come and its prompt is laid out.

        Raises:
            ApiError: The model can't be asked so, or the server stops.
        """
        await self._event()

    async def pieces(self) -> AsyncIterator[str]:
        """Yields its text as it comes, once it has begun.

        Raises:
            ApiError: It can't be made, or the server stops.
        """
        while (piece := await self._event()) is not None:
            if piece:
                yield piece

    async def _event(self) -> str | None:
        found = await self._events.get()
        if isinstance(found, ApiError):
            raise found
        return found

    def cancel(self) -> None:
        """Stops it where it is; takes it out of the queue where it has not begun."""
        self._unwanted.set()
        if self.made is not None:
            self.made.cancel()

    def stop(self, error: ApiError) -> None:
        """Cancels it, and lets whoever reads it know."""
        self.cancel()
        self._events.put_nowait(error)

    def make(self) -> None:
        """Makes it, in the thread that this is called in."""
        try:
            self._make()
        except ApiError as error:
            self._put(error)
        except ContextLengthError as error:
            self._put(invalid("", error.message, "context_length_exceeded"))
        except RequestError as error:
            self._put(invalid("", error.message))
        except BaseException:  # whatever a tokenizer or the model raises, the next request is answered
            _log.error("an answer failed\n%s", without_secrets(traceback.format_exc()))
            self._put(ApiError(500, "the model failed to answer; the server's log says why", code="model_error"))

    def _make(self) -> None:
        if self._unwanted.is_set():
            return
        self._reply = self._ask(self._model, self._unwanted.is_set)
        self._put("")
        for piece in self._reply:
            if self._unwanted.is_set():
                self._reply.close()
                return
            self._put(piece)
        self._put(None)

    def _put(self, event: str | ApiError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self._unwanted.set()


class AnswerQueue:
    """Asks one model, one question at a time, in the order in which they come.

    Args:
        model: The model. Nobody else may use it meanwhile.
        waiting: How many questions may wait.

    Attributes:
        embeds: Whether the model gives texts vectors, and answers nothing.

    Raises:
        RequestError: `waiting` is no such number.
    """

    def __init__(self, model: ReloadedModel | HeadModel, *, waiting: int = 8) -> None:
        check_number(waiting, "waiting", 0)
        from graftkit.flow.answering.reloaded_head import HeadModel

        self.embeds = isinstance(model, HeadModel)
        self._model, self._waiting = model, waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graftkit-answers")
        self._open: list[Answer] = []
        self.stopping = False

    def ask(self, ask: Ask) -> Answer:
        """Puts a question into the queue; called in an event loop.

        Raises:
            ApiError: Too many wait, or the server stops.
        """
        if self.stopping:
            raise stopping()
        self._open = [answer for answer in self._open if answer.made is not None and not answer.made.done()]
        if len(self._open) > self._waiting:
            raise overloaded(self._waiting)
        answer = Answer(ask, self._model)
        answer.made = self._thread.submit(answer.make)
        self._open.append(answer)
        return answer

    def stop(self) -> None:
        """Stops all answers where they are, and takes no further question; called in the event loop."""
        self.stopping = True
        for answer in self._open:
            answer.stop(stopping())
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ended(self, within: float) -> bool:
        """Waits for the answer that was being made when it was stopped; tells whether it has ended.

        It ends between two tokens, or two blocks of the model: over a very long prompt one may take minutes.

        Args:
            within: Seconds that are waited at most.
        """
        running = [answer.made for answer in self._open if answer.made is not None and answer.made.running()]
        return not wait(running, within).not_done
