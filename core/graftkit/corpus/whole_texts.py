"""Encodes texts as wholes, each with what the tokenizer puts around one, as encoders see texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.answers_compared import as_one_example
from graftkit.corpus.encoded import Encoded, refuse_length
from graftkit.corpus.encoding_rules import EncodingRules
from graftkit.corpus.long_text import encode_stretches
from graftkit.corpus.pairs import longest_first, pair_layout_of
from graftkit.corpus.stretches import is_long, stretches_of
from graftkit.corpus.text_targets import COMPARED, TextTargets, WholeText, parts_of, text_alone
from graftkit.corpus.words import first_tokens
from graftkit.errors import DataError
from graftkit.interfaces.samples import LongText, Sample, ScoredText, SimilarTexts, TaggedText, Text
from graftkit.interfaces.tokenizer import PairLayout, PutsAround, Specials, Tokenizer
from graftkit.store.token_store import TARGET, TYPE, Example

__all__ = ["WholeTexts"]


@dataclass(frozen=True)
class WholeTexts:
    """Encodes texts as wholes.

    Attributes:
        tokenizer: The tokenizer.
        start: The ids before a text, where the tokenizer does not say what it puts around one.
        max_length: The most tokens of an example.
        rules: What of a text is encoded and learnt.
        encode: Returns the ids of texts without what is put around them.
        check_rows: Refuses ids without an embedding row, given where the text stands.
        spelt: Returns the first control token that a text spells in plain characters.
    """

    tokenizer: Tokenizer
    start: Sequence[int]
    max_length: int
    rules: EncodingRules
    encode: Callable[[Sequence[str]], list[list[int]]]
    check_rows: Callable[[Sequence[int] | NDArray[np.integer[Any]], str], None]
    spelt: Callable[[Text | LongText], str | None]

    def of(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Returns the tokens of texts, and what is learnt of each where there are `targets`.

        Raises:
            DataError: One is refused.
        """
        targets = self.rules.targets
        if targets is None:
            texts = map(text_alone, samples)
            return [self._windows(sample) for sample in texts if isinstance(sample, Text | LongText)]
        if targets.kind == "tags":
            return self._tagged(targets, [sample for sample in samples if isinstance(sample, TaggedText)])
        if targets.kind in COMPARED:
            compared = (sample for sample in samples if isinstance(sample, SimilarTexts | ScoredText))
            return [self._compared(targets, sample) for sample in compared]
        return self._judged(targets, [sample for sample in samples if isinstance(sample, WholeText)])

    def _judged(self, targets: TextTargets, samples: Sequence[WholeText]) -> list[Encoded]:
        """Returns the tokens of texts that are learnt as wholes; what is too long is cut, unless it is to be left out.

        The position that scores are made at is counted as its token in the loss: the last one.

        Raises:
            DataError: A text is too long, and `overflow` is "error"; or the model lacks a row for one of its tokens.
        """
        texts = iter(self.encode([part for sample in samples for part in parts_of(sample)]))
        found = []
        for sample in samples:
            parts = [next(texts) for _ in parts_of(sample)]
            ids, types = self.around(parts)
            self.check_rows(ids, sample.where)
            over = len(ids) > self.max_length
            if over and self.rules.overflow == "error":
                refuse_length(f"{len(ids):,}", self.max_length, sample.where)
            if over:
                room = self.max_length - len(ids) + sum(map(len, parts))
                ids, types = self.around(longest_first(parts, room))
            weights = np.zeros(len(ids), np.float32)
            weights[-1:] = 1
            kept = len(ids) > 0 and not (over and self.rules.overflow == "drop")
            columns = {TYPE: np.array(types, np.uint8)} if self.rules.token_types else {}
            example = Example(np.array(ids, np.int64), weights, 0, columns, targets.columns(sample))
            found.append(Encoded([example] if kept else [], truncated=over, stops=True))
        return found

    def _tagged(self, targets: TextTargets, samples: Sequence[TaggedText]) -> list[Encoded]:
        """Returns the tokens of texts whose words have tags; what is too long is cut, unless it is to be left out.

        In the loss is the first token of each word, whose target is the number of the word's tag.

        Raises:
            DataError: A text is too long, and `overflow` is "error"; or the model lacks a row for one of its tokens; or
                a token is of two words.
        """
        before, after = self.put_around
        room = max(0, self.max_length - len(before) - len(after))
        specials: Specials = "all" if self.rules.parse_special_tokens else "none"
        found = []
        for sample in samples:
            if not self.tokenizer.capabilities.offsets:
                told = "the model's tokenizer does not say where its tokens stand in a text, nor of which word they are"
                raise DataError(told, where=sample.where, hint="One of a tokenizer.json does.")
            inside = self.tokenizer.encode_offsets(sample.text, specials)
            firsts, lost = first_tokens(inside.offsets, sample)
            ids = [*before, *inside.ids, *after]
            self.check_rows(ids, sample.where)
            over = len(ids) > self.max_length
            if over and self.rules.overflow == "error":
                refuse_length(f"{len(ids):,}", self.max_length, sample.where)
            ids = [*before, *inside.ids[:room], *after] if over else ids
            weights, tags = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.int32)
            for place, number in zip(firsts, targets.numbers(sample), strict=True):
                if place is not None and place < room:
                    weights[len(before) + place], tags[len(before) + place] = 1, number
            kept = bool(weights.any()) and not (over and self.rules.overflow == "drop")
            examples = [
                Example(ids=np.array(ids, np.int64), loss_weight=weights, prompt_length=0, by_token={TARGET: tags})
            ]
            found.append(Encoded(examples if kept else [], truncated=over, stops=True, untokened=lost))
        return found

    @cached_property
    def _longest_prompt(self) -> int:
        """How many tokens the longer one of what is put before queries and documents has."""
        prompts = [text for text in self.rules.targets.prompts if text] if self.rules.targets else []
        return max(map(len, self.encode(prompts)), default=0)

    def _compared(self, targets: TextTargets, sample: SimilarTexts | ScoredText) -> Encoded:
        """Returns an example for each text that is to be found by another, or of a pair, whose texts are sequences.

        What is too long is cut, unless it is to be left out.

        Raises:
            DataError: A text is too long, and `overflow` is "error"; or what is put before texts takes all that one may
                have; or the model lacks a row for one of its tokens.
        """
        before, after = self.put_around
        room = max(0, self.max_length - len(before) - len(after))
        if self._longest_prompt >= room:
            raise DataError(
                f"what is put before texts has {self._longest_prompt:,} tokens, and data.max_length is "
                f"{self.max_length:,}: nothing of a text is left",
                where=sample.where,
                hint="Raise data.max_length, or shorten objective.query_prompt or document_prompt.",
            )
        compared = targets.compared(sample)
        known: dict[str, Example] = {}
        truncated = False
        texts = list(dict.fromkeys(text for row in compared for text in row))
        for text, inside in zip(texts, self.encode(texts), strict=True):
            self.check_rows([*before, *inside, *after], sample.where)
            if len(inside) > room and self.rules.overflow == "error":
                refuse_length(f"{len(before) + len(inside) + len(after):,}", self.max_length, sample.where)
            truncated = truncated or len(inside) > room
            ids = np.array([*before, *inside[:room], *after], np.int64)
            weights = np.zeros(len(ids), np.float32)
            weights[-1:] = 1
            columns = {TYPE: np.zeros(len(ids), np.uint8)} if self.rules.token_types else {}
            known[text] = Example(ids, weights, 0, columns)
        left_out = (truncated and self.rules.overflow == "drop") or not all(len(each.ids) for each in known.values())
        rows = [] if left_out else compared
        examples = [as_one_example(sample, [known[text] for text in row]) for row in rows]
        if isinstance(sample, ScoredText):
            examples = [replace(example, by_example=targets.columns(sample)) for example in examples]
        surplus = isinstance(sample, SimilarTexts) and len(sample.negatives) > targets.negatives
        return Encoded(examples, truncated=truncated, stops=True, surplus=surplus)

    def around(self, parts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Returns the ids of a text, or of the two of a pair, with what is put around them, and their types.

        Raises:
            DataError: The tokenizer does not say what it puts around a pair.
        """
        if len(parts) == 1:
            before, after = self.put_around
            ids = [*before, *parts[0], *after]
            return ids, [0] * len(ids)
        return self.pair_layout.of(*parts)

    def _windows(self, sample: Text | LongText) -> Encoded:
        """Returns a text in windows of at most `max_length` tokens, each with what is put around a text.

        Raises:
            DataError: The model lacks a row for one of its tokens.
        """
        before, after = self.put_around
        room = max(1, self.max_length - len(before) - len(after))
        stretches = stretches_of(sample) if is_long(sample) else iter([sample.text])
        ids: list[int] = []
        for found, _ in encode_stretches(self.encode, stretches):
            ids += found
        self.check_rows([*before, *ids, *after], sample.where)
        examples = []
        for at in range(0, len(ids), room):
            inside = ids[at : at + room]
            whole = np.array([*before, *inside, *after], np.int64)
            weights = np.zeros(len(whole), np.float32)
            weights[len(before) : len(before) + len(inside)] = 1
            examples.append(Example(whole, weights, 0))
        return Encoded(examples, truncated=False, stops=True, spells=self.spelt(sample))

    @cached_property
    def pair_layout(self) -> PairLayout:
        """What the tokenizer puts around the two texts of a pair.

        Raises:
            DataError: It does not say.
        """
        return pair_layout_of(self.tokenizer, self.rules.token_types)

    @cached_property
    def put_around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before a text, and those that it puts after it."""
        own: object = self.tokenizer.put_around if isinstance(self.tokenizer, PutsAround) else None
        if isinstance(own, tuple):
            before, after = own
            return list(before), list(after)
        return list(self.start), []
