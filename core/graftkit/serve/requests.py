"""What clients may ask for: the bodies of chat completions and of completions, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.flow.generate import SEEDS
from graftkit.interfaces.samples import Message
from graftkit.serve.api_error import ApiError, invalid
from graftkit.serve.fields import Fields, items_of
from graftkit.serve.limits import Limits
from graftkit.serve.messages import MOST_TOOLS, message_of, tool_of

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "EmbeddingRequest",
    "GenerationOptions",
    "chat_request",
    "completion_request",
    "embedding_request",
]

_MOST_STOPS, _LONGEST_STOP = 4, 1_000
_ONE_ANSWER = "one answer is made for a request"
_NO_SCORES = "no probabilities are given"
_AS_IT_IS = "the model's own scores are taken"

_NO_INFLUENCE = (
    *("metadata", "prompt_cache_key", "prompt_cache_retention", "prediction", "safety_identifier", "service_tier"),
    *("store", "user"),
)
"""What tells OpenAI how to bill, keep or speed up an answer: it is the same answer without them."""


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How an answer is made and sent.

    Attributes:
        max_new_tokens: Tokens of it at most.
        sampling: Options of `graftkit.model.sampling.Sampling` by name; None for those left out.
        seed: What random numbers are derived from, where the client says so.
        stop: Texts that end it.
        stream: Whether it is sent as it is made.
        include_usage: Whether a stream ends with the counts of its tokens.
    """

    max_new_tokens: int
    sampling: Mapping[str, float | None]
    seed: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to answer.

    Attributes:
        messages: The conversation.
        tools: Descriptions of functions that may be called; None for those of the training.
        options: How it is answered.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] | None
    options: GenerationOptions


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A text to continue.

    Attributes:
        prompt: The text.
        options: How it is continued.
    """

    prompt: str
    options: GenerationOptions


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts whose vectors are asked for.

    Attributes:
        texts: The texts.
        dimensions: Of how many of its first numbers a vector is; all of them where None.
        as_base64: Whether numbers are sent as the bytes of float32, in base64.
    """

    texts: tuple[str, ...]
    dimensions: int | None
    as_base64: bool


def chat_request(body: Any, model: str, limits: Limits) -> ChatRequest:
    """Returns what the body of a chat completion asks for.

    Args:
        body: Its JSON.
        model: The name of the model that is served.
        limits: How much may be asked for.

    Raises:
        ApiError: It is malformed, too large, asks for what would silently not be done, or for another model.
    """
    fields = Fields(body)
    _check_model(fields, model)
    messages = tuple(
        message_of(value, path) for value, path in items_of(fields.required("messages"), "messages", limits.messages)
    )
    if not messages:
        raise invalid("messages", "messages is empty")
    tools = _tools(fields)
    options = _options(fields, limits)
    fields.only("logprobs", False, why=_NO_SCORES)
    fields.only("top_logprobs", 0, why=_NO_SCORES)
    fields.only("response_format", {"type": "text"}, why="nothing makes the model keep to a format")
    fields.only("modalities", ["text"], why="the model reads and writes text alone")
    for key in ("audio", "web_search_options"):
        fields.only(key, why="the model reads and writes text alone")
    for key in ("reasoning_effort", "verbosity"):
        fields.only(key, why="the model has no such setting")
    for key in ("functions", "function_call"):
        fields.only(key, why="functions stand in tools")
    fields.done()
    return ChatRequest(messages, tools, options)


def _tools(fields: Fields) -> tuple[Mapping[str, Any], ...] | None:
    """Returns the tools that the model is told of; none with `tool_choice: none`."""
    found = fields.items("tools", MOST_TOOLS)
    tools = None if found is None else tuple(tool_of(value, path) for value, path in found)
    fields.only("parallel_tool_calls", True, why="nothing limits how many functions the model calls")
    if fields.peek("tool_choice") == "none":
        fields.skip("tool_choice")
        return ()
    fields.only("tool_choice", "auto", why="nothing makes the model call a function")
    return tools


def completion_request(body: Any, model: str, limits: Limits) -> CompletionRequest:
    """Returns what the body of a completion asks for; arguments and errors as for `chat_request`."""
    fields = Fields(body)
    _check_model(fields, model)
    prompt = _prompt(fields)
    options = _options(fields, limits)
    fields.only("logprobs", why=_NO_SCORES)
    fields.only("best_of", 1, why=_ONE_ANSWER)
    fields.only("echo", False, why="the answer alone is sent")
    fields.only("suffix", "", why="nothing is written into the middle of a text")
    fields.done()
    return CompletionRequest(prompt, options)


def embedding_request(body: Any, model: str, limits: Limits) -> EmbeddingRequest:
    """Returns what the body of a request for vectors asks for; arguments and errors as for `chat_request`."""
    fields = Fields(body)
    _check_model(fields, model)
    found = fields.required("input")
    given = [found] if isinstance(found, str) else found
    texts = []
    for text, path in items_of(given, "input", limits.texts, "a string or a list of strings"):
        if not isinstance(text, str) or not text:
            where = path if isinstance(found, list) else "input"
            raise invalid(where, f"{where} is no text; token ids are not supported", "unsupported_value")
        texts.append(text)
    if not texts:
        raise invalid("input", "input is empty")
    encoding = fields.text("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise invalid("encoding_format", "encoding_format is float or base64", "unsupported_value")
    dimensions = fields.whole("dimensions", 1, 1 << 20)
    fields.skip(*_NO_INFLUENCE)
    fields.done()
    return EmbeddingRequest(tuple(texts), dimensions, encoding == "base64")


def _prompt(fields: Fields) -> str:
    """Returns the one text to continue."""
    found = fields.peek("prompt")
    if not isinstance(found, list):
        return fields.required_text("prompt")
    fields.skip("prompt")
    if len(found) != 1 or not isinstance(found[0], str):
        raise invalid("prompt", "prompt is one text; several, and token ids, are not supported", "unsupported_value")
    return found[0]


def _check_model(fields: Fields, served: str) -> None:
    asked = fields.text("model")
    if asked is not None and asked != served:
        message = f"there is no model {asked[:100]!r} here; {served!r} is served"
        raise ApiError(404, message, code="model_not_found", param="model")


def _options(fields: Fields, limits: Limits) -> GenerationOptions:
    """Returns what both kinds of requests say of an answer."""
    fields.only("n", 1, why=_ONE_ANSWER)
    for key in ("frequency_penalty", "presence_penalty"):
        fields.only(key, 0, 0.0, why=f"{_AS_IT_IS}; repetition_penalty is known")
    fields.only("logit_bias", {}, why=_AS_IT_IS)
    fields.skip(*_NO_INFLUENCE)
    sampling = {
        "temperature": fields.number("temperature", 0, 100),
        "top_p": fields.number("top_p", 0, 1),
        "top_k": fields.whole("top_k", 0, 1 << 31),
        "min_p": fields.number("min_p", 0, 1),
        "repetition_penalty": fields.number("repetition_penalty", 0.001, 100),
    }
    stream = fields.flag("stream")
    return GenerationOptions(
        _max_new_tokens(fields, limits.new_tokens),
        sampling,
        fields.whole("seed", *SEEDS),
        _stop(fields),
        stream,
        _include_usage(fields, stream),
    )


def _max_new_tokens(fields: Fields, most: int) -> int:
    names = ("max_completion_tokens", "max_tokens")
    found = {name: fields.whole(name, 1, most) for name in names}
    said = {value for value in found.values() if value is not None}
    if len(said) > 1:
        raise invalid(names[1], f"{names[0]} and {names[1]} mean the same, and are two numbers")
    return said.pop() if said else most


def _stop(fields: Fields) -> tuple[str, ...]:
    found = fields.take("stop")
    given = [] if found is None else [found] if isinstance(found, str) else found
    texts = []
    for text, path in items_of(given, "stop", _MOST_STOPS, "a string or a list of strings"):
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_STOP:
            where = path if isinstance(found, list) else "stop"
            raise invalid(where, f"{where} is no text of 1 to {_LONGEST_STOP:,} characters")
        texts.append(text)
    return tuple(texts)


def _include_usage(fields: Fields, stream: bool) -> bool:
    found = fields.take("stream_options")
    if found is None:
        return False
    if not stream:
        raise invalid("stream_options", "stream_options is for answers with stream: true")
    options = Fields(found, "stream_options")
    usage = options.flag("include_usage")
    options.skip("include_obfuscation")  # of no meaning to a client: it pads events
    options.done()
    return usage
