"""A model with a head, as `reload` loads it: it judges texts, where a language model answers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn.functional import normalize

from graftkit.arguments import check_unicode
from graftkit.corpus.encode import Encoder
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import RequestError
from graftkit.flow.answering.grouped_tags import grouped
from graftkit.flow.answering.reloaded_model import LayOut
from graftkit.flow.base_files.own_head import mask_token
from graftkit.flow.planning.head import scored_of
from graftkit.interfaces.architecture import token_types
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.samples import ROLES, Conversation, Message, Pair, Text
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.context import context_length
from graftkit.model.head import head_scores
from graftkit.model.packing import forward_inputs
from graftkit.report.run_manifest import HeadFacts
from graftkit.visible import one_line

__all__ = ["HeadModel", "Judgement"]

_SHOWN = 5
"""Labels and fills that are told, the likeliest first."""


class Judgement:
    """What a model with a head says of a text; like `Reply` it is read piece by piece, of which it has one.

    Attributes:
        text: It in words.
        facts: It as JSON.
    """

    def __init__(self, text: str, facts: Mapping[str, Any]) -> None:
        self.text, self.facts = text, facts
        self._pieces = iter([text])

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Does nothing: it is there as a whole."""


@dataclass(frozen=True, slots=True)
class HeadModel:
    """A model that gives texts labels, a number, a reward or a vector, their words tags, or fills in masked tokens.

    Attributes:
        network: The model.
        tokenizer: Its tokenizer.
        chat: How conversations were laid out.
        pairs: Whether it was trained on pairs of texts; None where that is not known.
    """

    network: Any
    tokenizer: Tokenizer
    chat: ChatOptions = field(default_factory=ChatOptions)
    pairs: bool | None = None

    def judge(self, text: str) -> Judgement:
        """Returns the labels of a text with their probabilities, its number, entities, vector, or fills of its masks.

        What they are transformers' pipelines `text-classification`, `token-classification` with
        `aggregation_strategy="first"`, and `fill-mask` say, too. Of a classifier they are
        its scores' softmax, or each score's sigmoid where a text may have several labels, which are those of more
        than 0.5; a reward, or the number of a regression, is the score itself. A vector has the length 1; of a pair
        of texts it is the cosine of their vectors.

        Args:
            text: The text, with what the tokenizer puts around one; or a JSON list of messages, which the chat template
                lays out where there is one; or, unless the model was trained on texts alone, a JSON object `{"text":
                ..., "text_pair": ...}` for a pair of texts, and no other object where it was trained on pairs. Of a
                masked model it has the tokenizer's mask token in it.

        Raises:
            RequestError: The text is empty, too long or no UTF-8, or has no mask token; or the messages can't be laid
                out, or don't end with an answer.
            DataError: The tokenizer does not say how a pair of texts becomes one sequence.
        """
        check_unicode(text, "text")
        kind = self.scored.kind
        masked = kind == "masked"
        pair = None if masked else self.pair_in(text)
        if kind == "token":
            return self._tagged(text)
        if kind == "embedding":
            return self._embedded(pair or [text])
        ids, types = self._ids_of_texts(*pair) if pair else (self._ids(text, masked=masked), [])
        self._check(ids)
        return self._filled(ids) if masked else self._scored(ids, types)

    @torch.no_grad()
    def embed(self, text: str, lay_out: LayOut | None = None) -> tuple[torch.Tensor, int]:
        """Returns the vector of a text, `[hidden]`, float32, of the length 1, on the CPU, and how many tokens it has.

        Args:
            text: The text, with what the tokenizer puts around one.
            lay_out: How its ids are made, such as within a limit of time; at once when left out.

        Raises:
            RequestError: As for `judge`; or the model gives no vectors.
        """
        if self.scored.kind != "embedding":
            raise RequestError(
                "the model gives texts no vectors", hint="One does that objective: embedding has trained."
            )
        check_unicode(text, "text")
        work = partial(self._ids_alone, text)
        ids = lay_out(len(text), work) if lay_out else work()
        types = [0] * len(ids) if token_types(self.network.config.to_dict()) else []
        self._check(ids)
        sequence = torch.tensor(ids, device=self.network.device)
        of = torch.tensor(types, device=self.network.device) if types else None
        found = head_scores(self.network, [sequence], forward_inputs([sequence], packed=False, token_type_ids=of))[0]
        return normalize(found, dim=0).cpu(), len(ids)

    def _ids_alone(self, text: str) -> list[int]:
        return self._ids_of_texts(text)[0]

    def _embedded(self, texts: Sequence[str]) -> Judgement:
        """Returns the vector of a text, or the cosine of those of two."""
        vectors, tokens = zip(*map(self.embed, texts), strict=True)
        if len(vectors) == 2:
            cosine = (vectors[0] @ vectors[1]).item()
            return Judgement(f"{cosine:.4f}", {"similarity": cosine, "tokens": sum(tokens)})
        numbers = vectors[0].tolist()
        shown = ", ".join(f"{number:.4f}" for number in numbers[:_SHOWN])
        more = f", ... ({len(numbers):,} numbers)" if len(numbers) > _SHOWN else ""
        return Judgement(f"{shown}{more}", {"embedding": numbers, "tokens": tokens[0]})

    def _check(self, ids: Sequence[int]) -> None:
        """Refuses a text without a token, or with more than the model's context.

        Raises:
            RequestError: It is one.
        """
        context = context_length(self.network.config.to_dict())
        if not ids:
            raise RequestError("the text is empty", hint="Give it a word.")
        if context is not None and len(ids) > context:
            raise RequestError(f"the text has {len(ids)} tokens; the model's context is {context}")

    @property
    def scored(self) -> HeadFacts:
        """What stands on its hidden states, and what its scores are of."""
        config = self.network.config
        return scored_of(config.to_dict(), config.num_labels)

    @property
    def labels(self) -> list[str]:
        """What scores are of, in their order; none where there is one score without a name."""
        return self.scored.labels

    def pair_in(self, text: str) -> Pair | None:
        """Returns the two texts that a text is a JSON object of; None where it is none, or no pair is asked for.

        Raises:
            RequestError: It is such an object, and has something else in it.
        """
        kind = self.scored.kind
        if kind not in ("sequence", "embedding") or (kind == "sequence" and self.pairs is False):
            return None
        found = _json_in(text, "{")
        return _pair(found) if found is not None and (self.pairs or "text_pair" in found) else None

    def _ids_of_texts(self, *texts: str) -> tuple[list[int], list[int]]:
        """Returns the ids of a text, or of a pair, and their types, where the model has embeddings of them.

        Of a text that has no tokens but those that are put around one there are none.
        """
        count = token_types(self.network.config.to_dict())
        rows = self.network.get_input_embeddings().num_embeddings
        encoder = Encoder(self.tokenizer, None, 1 << 30, rows, EncodingRules(token_types=count))
        ids, types = encoder.texts.around(encoder.encode_plainly(texts))
        if len(texts) == 1 and len(ids) == sum(map(len, encoder.texts.put_around)):
            return [], []
        encoder.check_rows(ids, "the texts")
        return ids, types if count else []

    def _ids(self, text: str, *, masked: bool) -> list[int]:
        messages = None if masked or self.tokenizer.chat_template is None else _messages(text)
        encoder = Encoder(
            self.tokenizer,
            chat_template_of(self.tokenizer, options=self.chat),
            max_length=1 << 30,
            rows=self.network.get_input_embeddings().num_embeddings,
            rules=EncodingRules(report_dropped=True, whole_texts=messages is None, parse_special_tokens=masked),
        )
        sample = Text(text, "the text") if messages is None else Conversation(messages, "the messages")
        return [int(id) for example in encoder.encode(sample).examples for id in example.ids]

    @torch.no_grad()
    def _scored(self, ids: Sequence[int], types: Sequence[int]) -> Judgement:
        sequence = torch.tensor(ids, device=self.network.device)
        of = torch.tensor(types, device=self.network.device) if types else None
        inputs = forward_inputs([sequence], packed=False, token_type_ids=of)
        scores = head_scores(self.network, [sequence], inputs)[0]
        labels, several = self.scored.labels, self.scored.several
        if len(scores) == 1 and not several:
            [name] = labels or ["reward"]
            return Judgement(f"{scores[0].item():.4f}", {name: scores[0].item(), "tokens": len(ids)})
        shares = dict(zip(labels, (scores.sigmoid() if several else scores.softmax(0)).tolist(), strict=True))
        order = sorted(shares, key=lambda label: -shares[label])
        text = ", ".join(f"{label} {shares[label]:.4f}" for label in order[:_SHOWN])
        above = {label for label, score in zip(labels, scores.tolist(), strict=True) if score > 0}
        found = {"labels": [label for label in order if label in above]} if several else {}
        likeliest = {} if several and not above else {"label": order[0]}
        facts = {**likeliest, **found, "probabilities": {label: shares[label] for label in order}}
        return Judgement(text, facts | {"tokens": len(ids)})

    @torch.no_grad()
    def _tagged(self, text: str) -> Judgement:
        """Returns the entities of a text."""
        encoder = Encoder(self.tokenizer, None, 1 << 30, self.network.get_input_embeddings().num_embeddings)
        encoded = self.tokenizer.encode_offsets(text)
        before, after = encoder.texts.put_around
        ids = [*before, *encoded.ids, *after]
        self._check(encoded.ids)
        self._check(ids)
        encoder.check_rows(ids, "the text")
        sequence = torch.tensor(ids, device=self.network.device)
        scores = head_scores(self.network, [sequence], forward_inputs([sequence], packed=False))
        shares = scores.softmax(1)[len(before) : len(before) + len(encoded.ids)].cpu()
        found = grouped(text, encoded.offsets, shares, self.labels)
        lines = [f"{entity.word}: {entity.label} {entity.score:.4f}" for entity in found]
        facts = {"entities": [asdict(entity) for entity in found], "tokens": len(ids)}
        return Judgement("\n".join(lines) or "no entity", facts)

    @torch.no_grad()
    def _filled(self, ids: Sequence[int]) -> Judgement:
        mask = mask_token(self.tokenizer, "the tokenizer")
        places = [place for place, id in enumerate(ids) if id == mask]
        if not places:
            spelt = next(text for text, id in self.tokenizer.special_tokens.items() if id == mask)
            raise RequestError(f"the text has no {spelt}", hint=f"Write {spelt} where a token is to be filled in.")
        sequence = torch.tensor(ids, device=self.network.device)
        logits = self.network(**forward_inputs([sequence], packed=False)).logits[0, places].float()
        likeliest = logits.softmax(1).topk(min(_SHOWN, logits.shape[1]), 1)
        fills = [
            [
                {"token": self.tokenizer.decode([id]).strip(), "id": id, "probability": share}
                for id, share in zip(of_place, shares, strict=True)
            ]
            for of_place, shares in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        ]
        lines = [", ".join(f"{fill['token']} {fill['probability']:.4f}" for fill in of_place) for of_place in fills]
        return Judgement("\n".join(lines), {"fills": fills, "tokens": len(ids)})


def _json_in(text: str, begins: str) -> Any:
    """Returns what a text says that begins so and is JSON; None of another."""
    if not text.lstrip().startswith(begins):
        return None
    try:
        return parse_json(text.encode(), unicode=True)
    except ValueError:
        return None


def _messages(text: str) -> tuple[Message, ...] | None:
    """Returns the messages that a text is a JSON list of; None where it is none.

    Raises:
        RequestError: It is such a list, and a message says something else than a role and a content, or the last one
            is no answer.
    """
    found = _json_in(text, "[{")
    if found is None:
        return None
    for number, one in enumerate(found, 1):
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in _OF_A_MESSAGE):
            raise RequestError("each of the messages has a role and a content, which are texts")
        others = ", ".join([f"'{one_line(key, 40)}'" for key in one if key not in _OF_A_MESSAGE][:_SHOWN])
        if others:
            hint = "A conversation is judged by the role and the content of its messages."
            raise RequestError(f"message {number} has {others}, which would be left out", hint=hint)
        if one["role"] not in ROLES:
            told = f"message {number} is of the role '{one_line(one['role'], 40)}'"
            raise RequestError(told, hint=f"Roles are {', '.join(ROLES)}.")
    role, content = (found[-1][key] for key in _OF_A_MESSAGE)
    if role != "assistant" or not content:
        told = "is empty" if role == "assistant" else f"is of the role {role}"
        raise RequestError(f"the last message {told}", hint="Let the assistant answer: the answer is what is judged.")
    return tuple(Message(one["role"], one["content"]) for one in found)


_OF_A_MESSAGE = ("role", "content")


def _pair(found: Mapping[str, Any]) -> Pair:
    """Returns the two texts of a pair that was given as a JSON object.

    Raises:
        RequestError: It has something else in it.
    """
    texts = found.get("text"), found.get("text_pair")
    if found.keys() != {"text", "text_pair"} or not all(isinstance(one, str) and one for one in texts):
        keys = ", ".join(f"'{one_line(key, 40)}'" for key in [*found][:_SHOWN]) or "no key"
        raise RequestError(
            f"the text is a JSON object with {keys}, and that of a pair has two texts, 'text' and 'text_pair'",
            hint='Write the pair so, whatever the columns of the records were called: {"text": "...", "text_pair": '
            '"..."}.',
        )
    return str(texts[0]), str(texts[1])
