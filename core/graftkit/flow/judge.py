"""What models with a head say of texts: labels, numbers, rewards, tags of words, tokens behind masks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graftkit.arguments import check_flags, check_is, check_path, check_several
from graftkit.errors import RequestError, named
from graftkit.flow.answering.plugins_of_run import plugins_of_run
from graftkit.host.host import PluginHost
from graftkit.interfaces.offline import no_network_if

if TYPE_CHECKING:
    from graftkit.flow.answering.reload import AdapterBase
    from graftkit.flow.answering.reloaded_head import HeadModel

__all__ = ["ONE_OF_TWO", "Judged", "JudgedPrompt", "judge"]

JudgedPrompt = str | Mapping[str, str] | Sequence[Mapping[str, str]]
"""A text; or two of them, `{"text": ..., "text_pair": ...}`; or a conversation, a list of messages."""

_Shape = Literal["text", "pair", "conversation"]

ONE_OF_TWO = (
    'the model was trained on pairs of texts, and asked of one; of two: \'{"text": "...", "text_pair": "..."}\''
)
"""What is told where it was."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model with a head said of a text.

    Attributes:
        prompt: The text; of two, or of a conversation, their JSON.
        text: What was said, in words.
        facts: What was said, as `toolkit generate --json` prints it: of a classifier `label` and `probabilities`.
        notices: What the user should know.
    """

    prompt: str
    text: str
    facts: Mapping[str, Any]
    notices: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return {"prompt": self.prompt, **self.facts}


def judge(
    source: str | os.PathLike[str],
    texts: JudgedPrompt | Iterable[JudgedPrompt],
    *,
    on: AdapterBase | None = None,
    host: PluginHost | None = None,
    offline: bool = False,
) -> list[Judged]:
    """Asks a classifier, a regression, a reward model or another model with a head of texts, one by one.

    Others tag the words of a text, fill in its masked tokens, or give it a vector.

    Args:
        source: A run's folder, an export, an adapter of peft's, a model's folder, or a hub id.
        texts: The texts, or one: each a text, two of them as `{"text": ..., "text_pair": ...}`, or a conversation such
            as `[{"role": "user", "content": "Hello"}]`.
        on: What an adapter is loaded on.
        host: The plugins; those that are installed, without those that the run's recipe leaves out, when left out.
        offline: Whether nothing is fetched: a hub id that is not on this machine is refused.

    Raises:
        RequestError: Nothing can be loaded from it, it is a language model, or it can't be asked so: of a pair or a
            conversation, where it takes single texts alone.
    """
    name = check_path(source, "source")
    asked = _asked(texts)
    check_flags(offline=offline)
    if host is not None:
        check_is(host, PluginHost, "host")

    from graftkit.flow.answering.reload import AdapterBase, reload_any
    from graftkit.flow.answering.reloaded_head import HeadModel

    if on is not None:
        check_is(on, AdapterBase, "on")
    with no_network_if(offline):
        model = reload_any(name, host or plugins_of_run(name), on)
    if not isinstance(model, HeadModel):
        raise RequestError(
            "it is a language model, which judges no texts", where=name, hint="Ask by graftkit.generate."
        )
    _refuse_others(asked, model)
    judged = []
    for number, (text, _) in enumerate(asked):
        with named(f"texts[{number}]"):
            found = model.judge(text)
            notices = (ONE_OF_TWO,) if model.pairs and model.pair_in(text) is None else ()
        judged.append(Judged(text, found.text, found.facts, notices))
    return judged


def _refuse_others(asked: Sequence[tuple[str, _Shape]], model: HeadModel) -> None:
    """Refuses pairs and conversations of which the model would judge the JSON.

    Raises:
        RequestError: There is one.
    """
    lays_out = model.scored.kind == "sequence" and model.tokenizer.chat_template is not None
    for number, (text, shape) in enumerate(asked):
        if (shape == "pair" and model.pair_in(text) is None) or (shape == "conversation" and not lays_out):
            raise RequestError(
                f"it is a {shape}, and the model takes single texts alone", where=f"texts[{number}]", hint="Give texts."
            )


def _asked(texts: Any) -> list[tuple[str, _Shape]]:
    """Returns texts as a model is asked, and what they are; two texts, and messages, as their JSON.

    Raises:
        RequestError: Something else was given.
    """
    hint = 'Give texts, pairs such as {"text": "...", "text_pair": "..."}, or lists of messages.'
    if isinstance(texts, str | Mapping):
        texts = [texts]
    check_several(texts, "texts", "texts", hint, RequestError)
    found = list(texts)
    if found and isinstance(found[0], Mapping) and "role" in found[0]:
        found = [found]
    for number, one in enumerate(found):
        several = isinstance(one, list | tuple) and one and all(isinstance(turn, Mapping) for turn in one)
        if not (isinstance(one, str | Mapping) or several):
            raise RequestError("it is neither a text, nor two, nor a conversation", where=f"texts[{number}]", hint=hint)
    return [
        (one, "text")
        if isinstance(one, str)
        else (_json(one, number), "pair" if isinstance(one, Mapping) else "conversation")
        for number, one in enumerate(found)
    ]


def _json(one: Any, number: int) -> str:
    try:
        return json.dumps(dict(one) if isinstance(one, Mapping) else [dict(turn) for turn in one], ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"it can't be written as JSON: {error}", where=f"texts[{number}]") from None
