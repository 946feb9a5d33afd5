"""What of records is encoded and learnt, whatever the tokenizer and the length of an example."""

from __future__ import annotations

from dataclasses import dataclass

from graftkit.corpus.encoded import Overflow
from graftkit.corpus.text_targets import TextTargets

__all__ = ["EncodingRules"]


@dataclass(frozen=True, slots=True)
class EncodingRules:
    """What of records is encoded and learnt.

    Attributes:
        report_dropped: Whether what a template leaves out of a conversation is told, rather than refused.
        overflow: What becomes of a conversation or completion that is longer than an example: "drop_turns": it ends
            with the last answer that fits as a whole; "drop": it is left out; "truncate": it is cut off; "error".
        parse_special_tokens: Whether special tokens that texts, prompts and completions spell are such, in place of
            plain characters. What begins with the `bos` token, or ends with any, gets none put around it.
        targets: Where something of each text as a whole is learnt, what that is: a record is then its text alone, with
            what the tokenizer puts around one, and the number of its label, say.
        token_types: Of how many types of tokens the model has embeddings; see `PairLayout`. 0: of none.
        whole_texts: Whether each window of a text has around it what the tokenizer puts around a text, as encoders see
            texts, and every token of the text itself is in the loss.
        asks: Whether the model answers the records itself, and nothing of their own answers is learnt: of one that is
            too long the prompt is kept alone, where that leaves room for an answer.
    """

    report_dropped: bool = False
    overflow: Overflow = "drop_turns"
    parse_special_tokens: bool = False
    targets: TextTargets | None = None
    token_types: int = 0
    whole_texts: bool = False
    asks: bool = False
