"""The model that another one learns from: opened, and compared with it, before records are read."""

from __future__ import annotations

from dataclasses import dataclass

from graftkit.errors import ModelError, RecipeError
from graftkit.flow.base_files.open_model import embedding_rows, load_tokenizer, open_model
from graftkit.flow.base_files.own_head import refuse_head
from graftkit.flow.planning.head import with_facts
from graftkit.flow.planning.vocabulary import VocabularyRequest
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.objective_config import TeacherConfig
from graftkit.interfaces.tokenizer import Tokenizer, bytes_of
from graftkit.model.context import context_length
from graftkit.recipe.bind import BoundRecipe

__all__ = ["Teacher", "open_teacher"]


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher of a plan, and what is kept of what it says.

    Attributes:
        source: The model source that opens it.
        files: The opened model.
        quantizer: What stores its weights while it is scored.
        quantizer_config: That one's fields.
        vocabulary: How many tokens it shares with the model that learns; those after them are none of either's
            tokenizer, and have no part in its distribution.
        top_k: How many of these are kept at each place.
        temperature: What its logits are divided by.
    """

    source: RegisteredProvider
    files: BaseModelFiles
    quantizer: RegisteredProvider
    quantizer_config: ProviderConfig
    vocabulary: int
    top_k: int
    temperature: float


def open_teacher(
    bound: BoundRecipe,
    host: PluginHost,
    tokenizer: Tokenizer,
    rows: int | None,
    max_length: int,
    vocabulary: VocabularyRequest | None,
) -> Teacher | None:
    """Opens the teacher that a recipe's objective names.

    Args:
        bound: The recipe.
        host: The plugins.
        tokenizer: What records are encoded with.
        rows: How many rows the embedding of the model that learns has; None where each id gets one.
        max_length: Tokens of a sequence at most.
        vocabulary: What the recipe makes of the vocabulary.

    Returns:
        It, or None where the objective has none.

    Raises:
        ModelError: It can't be opened, or is no language model.
        RecipeError: It has another vocabulary, or a shorter context.
        ProviderError: There is no such quantizer.
    """
    config = bound.objective_config
    if not isinstance(config, TeacherConfig):
        return None
    where = bound.document.where(("objective", "teacher"))
    if vocabulary and not vocabulary.replacement:
        raise RecipeError(
            f"the teacher doesn't know the tokens of another vocabulary: {vocabulary.describe()}",
            where=where,
            hint="Leave `tokenizer` out, or give the model the teacher's: tokenizer: {replace: TEACHER}.",
        )
    source, opened = open_model(host, config.teacher, where=where)
    files = with_facts(opened, None)
    refuse_head(files.config, files.reference, "a teacher is a language model")
    own = load_tokenizer(files, host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend)))
    _check_tokens(tokenizer, own, where)
    known, taught = embedding_rows(files), min(tokenizer.vocab_size, rows or tokenizer.vocab_size)
    if known is not None and known < taught:
        raise ModelError(f"its embedding has {known:,} rows for {taught:,} tokens", where=files.reference)
    context = context_length(files.config)
    if context is not None and context < max_length:
        raise RecipeError(
            f"the teacher's context is {context:,} tokens, and records have up to {max_length:,}",
            where=where,
            hint=f"Set data.max_length to {context} at most.",
        )
    quantizer = host.registry.resolve(
        "quantizer", config.teacher_quantizer, where=bound.document.where(("objective", "teacher_quantizer"))
    )
    return Teacher(
        source,
        files,
        quantizer,
        host.registry.config_class(quantizer)(),
        taught,
        min(config.top_k, taught),
        config.temperature,
    )


def _check_tokens(student: Tokenizer, teacher: Tokenizer, where: str) -> None:
    """Makes sure that each id of the model that learns is the same token of its teacher's, which may have more.

    Raises:
        RecipeError: One is another.
    """
    if student.fingerprint == teacher.fingerprint:
        return
    for id in range(student.vocab_size):
        mine, theirs = bytes_of(student, id), bytes_of(teacher, id)
        if mine != theirs and mine is not None:
            told = "none" if theirs is None else repr(theirs.decode("utf-8", "replace"))
            raise RecipeError(
                f"the teacher has another vocabulary: token {id:,} is {mine.decode('utf-8', 'replace')!r} of the model "
                f"that learns, and {told} of the teacher",
                where=where,
                hint="Take a teacher with the same tokenizer, or give the model the teacher's: "
                "tokenizer: {replace: TEACHER}.",
            )
