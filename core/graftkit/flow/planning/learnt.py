"""What is learnt of a recipe's records: by which objective, with which head, and encoded how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from graftkit.corpus.encode import Encoder
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.flow.base_files.own_head import mask_token
from graftkit.flow.folders.adapter_folder import AdapterFolder
from graftkit.flow.planning.head import (
    head_facts,
    labels_in_order,
    told_of_pairs,
    with_facts,
    with_objective_of,
)
from graftkit.flow.planning.opened_base import OpenedBase, PlannedTokenizer
from graftkit.flow.planning.read_records import ReadRecords
from graftkit.flow.planning.run_plan import chats
from graftkit.flow.planning.sampled import refuse_sampled, refuse_unanswered
from graftkit.flow.records.chat import chat_options, check_arguments, check_end_of_turn
from graftkit.flow.records.record_encoder import encoder_of, longest_example
from graftkit.flow.records.template_check import check_template
from graftkit.interfaces.architecture import token_types
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.run_manifest import HeadFacts

__all__ = ["Encoding", "Learnt", "plan_encoding", "what_is_learnt"]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is learnt.

    Attributes:
        bound: The recipe, whose objective has what follows from the records.
        records: The records.
        labels: The labels of texts, in the order of their numbers.
        head: The head that learns; None for a language model's own.
        files: The base model's files, whose configuration asks for that head.
    """

    bound: BoundRecipe
    records: ReadRecords
    labels: Sequence[str]
    head: HeadFacts | None
    files: BaseModelFiles

    @property
    def chats(self) -> bool:
        """Whether training records are laid out by a chat template."""
        return chats(self.bound, self.records.samples)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How records become tokens.

    Attributes:
        today: The day that chat templates write where they ask for the date.
        template: What lays conversations out; None where there is no chat template.
        length: How many tokens an example may have.
        rows: How many rows the embedding will have; None where each id gets one, or the files don't say.
        encoder: Turns records into tokens.
        joined: What the user should know of how the two texts of a pair are joined.
    """

    today: date
    template: ChatTemplate | None
    length: int
    rows: int | None
    encoder: Encoder
    joined: list[str]

    def differences(self, learnt: Learnt) -> list[str]:
        """Returns what the user should know of the chat template: how answers come out otherwise than they are learnt.

        Args:
            learnt: What is learnt.
        """
        return check_template(self.encoder, learnt.records.samples) if learnt.chats else []


def what_is_learnt(
    bound: BoundRecipe,
    records: ReadRecords,
    base: OpenedBase,
    tokenizer: PlannedTokenizer,
    origin: AdapterFolder | None,
) -> Learnt:
    """Finds out what is learnt of records.

    Args:
        bound: The recipe.
        records: The records.
        base: The base model.
        tokenizer: What they are encoded with.
        origin: The adapter that training goes on with, if any.

    Raises:
        DataError, RecipeError: As `labels_in_order` and `with_objective_of`.
    """
    labels = labels_in_order(bound, records.labels, base.own.config, str(records.datasets[0].source), origin)
    bound = with_objective_of(bound, records)
    head = head_facts(bound, labels, tokenizer.known, base.files.config, pairs=records.pairs)
    return Learnt(bound, records, labels, head, with_facts(base.files, head))


def plan_encoding(learnt: Learnt, tokenizer: PlannedTokenizer, started: date | None) -> Encoding:
    """Makes what encodes records.

    Args:
        learnt: What is learnt.
        tokenizer: What they are encoded with.
        started: The day of the run that goes on, if any, which stays its day unless the recipe says one.

    Raises:
        RecipeError: The recipe asks for what the tokenizer, its chat template or the model's context does not allow.
        DataError: Records lack what a metric needs, or pairs can't be joined.
        ModelError: Tokens are masked, and the tokenizer has no mask token.
    """
    bound, files, known = learnt.bound, learnt.files, tokenizer.known
    today = bound.recipe.data.date or started or date.today()
    rows = tokenizer.rows(files)
    template, length = chat_template_of(known, today, chat_options(bound)), longest_example(bound, files.config)
    refuse_sampled(bound, length)
    refuse_unanswered(bound, learnt.records.unanswered)
    encoder = encoder_of(bound, known, template, length, rows, learnt.labels, token_types(files.config))
    joined = told_of_pairs(encoder) if learnt.head and learnt.head.pairs else []
    if encoder.rules.whole_texts:
        mask_token(known, files.reference, rows)
    check_arguments(bound, template)
    check_end_of_turn(bound, encoder.tokenizer)
    return Encoding(today, template, length, rows, encoder, joined)
