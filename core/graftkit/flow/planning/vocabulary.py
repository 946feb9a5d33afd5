"""The vocabulary of a run: the base model's, or what the recipe makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from graftkit.corpus.encode import Encoder
from graftkit.corpus.stretches import texts_of
from graftkit.corpus.texts import text_files
from graftkit.errors import RecipeError, RequestError
from graftkit.flow.base_files.find_tokenizer import find_tokenizer
from graftkit.flow.base_files.open_model import embedding_rows
from graftkit.flow.records.datasets import open_dataset
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.samples import Sample
from graftkit.interfaces.tokenizer import ROLES, NamedTemplates, Tokenizer
from graftkit.interfaces.vocabulary import (
    ExtendableBackend,
    ExtensionPlan,
    ExtensionSpec,
    TrainableBackend,
    TrainingSpec,
    VocabularyChange,
)
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.schema.tokenizer import ExtendSection, TokenizerSection, TrainVocabularySection
from graftkit.vocabulary.match import change_by_extension, change_by_replacement

__all__ = [
    "BuiltTokenizer",
    "Vocabulary",
    "VocabularyRequest",
    "build_tokenizer",
    "carrying",
    "plan_vocabulary",
    "sample_texts",
]


@dataclass(frozen=True, slots=True)
class VocabularyRequest:
    """What a recipe, or the adapter that training goes on with, makes of the base model's vocabulary.

    Attributes:
        section: The recipe's section; None where the adapter says it.
        registered: The backend of the tokenizer that comes out.
        backend: That backend.
        replacement: The tokenizer that takes the base's place, where it is there already.
        corpus: The texts to learn from, or None for the training records.
        change: What the adapter's trained rows make of the embeddings; None where it has none, or a recipe says it.
    """

    section: TokenizerSection | None
    registered: RegisteredProvider
    backend: Any
    replacement: Tokenizer | None = None
    corpus: Iterable[str] | None = None
    change: VocabularyChange | None = None

    def rows(self, files: BaseModelFiles) -> int | None:
        """Returns how many rows the embedding will have; None where each id gets one.

        Args:
            files: The base model.
        """
        if self.section is not None:
            return None
        return self.change.size if self.change else embedding_rows(files)

    def describe(self) -> str:
        """Says in a few words what will happen."""
        if self.section is None:
            assert self.replacement is not None
            rows = f" and {len(self.change.ids):,} trained rows" if self.change else ""
            return f"the adapter's tokenizer ({self.replacement.vocab_size:,} ids){rows}"
        if self.section.extend:
            words = f" and {len(self.section.extend.words)} words" if self.section.extend.words else ""
            return f"extended by up to {self.section.extend.tokens:,} tokens{words}"
        if self.section.train:
            return f"{self.section.train.use}, trained to {self.section.train.vocab_size:,} ids"
        assert self.section.replace is not None and self.replacement is not None
        return f"replaced by {self.section.replace.path} ({self.replacement.vocab_size:,} ids)"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a run's records are encoded with.

    Attributes:
        tokenizer: The tokenizer.
        offer: Its backend.
        encoder: Turns records into its tokens.
        base: The base model's tokenizer; the same one where the vocabulary stays.
        change: What becomes of the rows of the embeddings, or None where the vocabulary stays.
        texts: The texts that new tokens were learnt from, for who makes their rows.
    """

    tokenizer: Tokenizer
    registered: RegisteredProvider
    encoder: Encoder
    base: Tokenizer
    change: VocabularyChange | None = None
    texts: Iterable[str] = ()


def carrying(template: str | None, tokenizer: Tokenizer) -> Tokenizer:
    """Returns the tokenizer with the recipe's chat template, where there is one."""
    return tokenizer if template is None else tokenizer.with_chat_template(template)


def plan_vocabulary(
    bound: BoundRecipe, host: PluginHost, base: RegisteredProvider, ids: int, template: str | None
) -> VocabularyRequest | None:
    """Checks the recipe's section `tokenizer`.

    Args:
        bound: The recipe.
        host: The plugins.
        base: The backend of the base model's tokenizer.
        ids: How many ids that tokenizer has.
        template: The recipe's chat template, or None; one that is extended or trained gets it from the base.

    Raises:
        RecipeError: A family that can't be extended, or trained.
        RequestError: With what is asked for it might have more ids than a tokenizer may have.
        DataError: The corpus is not there.
        ModelError: The tokenizer that is to take the base's place can't be read.
    """
    section = bound.recipe.tokenizer
    if section is None or not section.changes_vocabulary:
        return None
    if section.replace:
        where = bound.document.where(("tokenizer", "replace"))
        found = find_tokenizer(host, section.replace.path, section.replace.use, where)
        return VocabularyRequest(section, found.registered, None, carrying(template, found.tokenizer))
    if section.extend:
        try:
            _extension(section.extend).check_room(ids)
        except RequestError as error:
            error.where = bound.document.where(("tokenizer", "extend"))
            raise
        return _planned(bound, host, base, section, "extend", ExtendableBackend, section.extend.corpus)
    assert section.train is not None and bound.trainer is not None
    return _planned(bound, host, bound.trainer.registered, section, "train", TrainableBackend, section.train.corpus)


def _planned(
    bound: BoundRecipe,
    host: PluginHost,
    registered: RegisteredProvider,
    section: TokenizerSection,
    way: str,
    ability: type,
    corpus: list[str],
) -> VocabularyRequest:
    backend = host.registry.create(registered, bound.trainer.config if bound.trainer else None)
    if not isinstance(backend, ability):
        able = [o.provider.name for o in host.registry.providers("tokenizer") if _is(host, o, ability)]
        raise RecipeError(
            f"the tokenizer backend '{registered.provider.name}' can't {way} a tokenizer",
            where=bound.document.where(("tokenizer", way)),
            hint=f"These can: {', '.join(able) or 'none that is installed'}.",
        )
    where = bound.document.where(("tokenizer", way, "corpus"))
    texts = text_files(corpus, partial(open_dataset, host), where) if corpus else None
    return VocabularyRequest(section, registered, backend, corpus=texts)


def _is(host: PluginHost, registered: RegisteredProvider, ability: type) -> bool:
    return not host.registry.missing_requirements(registered.provider) and isinstance(
        host.registry.create(registered), ability
    )


@dataclass(frozen=True, slots=True)
class BuiltTokenizer:
    """A tokenizer that a run made, and what came of making it.

    Attributes:
        tokenizer: The tokenizer.
        change: What becomes of the rows of the embeddings, or None where they stay.
        plan: What was added, where tokens were.
    """

    tokenizer: Tokenizer
    change: VocabularyChange | None
    plan: ExtensionPlan | None = None


def build_tokenizer(request: VocabularyRequest, base: Tokenizer, rows: int, texts: Iterable[str]) -> BuiltTokenizer:
    """Trains, extends or takes the tokenizer.

    Args:
        request: What the recipe says, or the adapter that training goes on with.
        base: The base model's tokenizer.
        rows: Rows of the model's embedding.
        texts: The texts to learn from.

    Raises:
        RequestError: There is nothing to learn in the texts, or the tokenizer can't have what is asked for.
    """
    section = request.section
    if section is None:
        assert request.replacement is not None
        return BuiltTokenizer(request.replacement, request.change)
    if section.extend:
        plan: ExtensionPlan = request.backend.extend(base, texts, _extension(section.extend))
        return BuiltTokenizer(plan.tokenizer, change_by_extension(plan, rows), plan)
    if section.train:
        trained: Tokenizer = request.backend.train(texts, _training(section.train, base))
        return BuiltTokenizer(trained, change_by_replacement(base, trained, rows, "trained"))
    assert request.replacement is not None
    return BuiltTokenizer(request.replacement, change_by_replacement(base, request.replacement, rows, "replaced"))


def _extension(section: ExtendSection) -> ExtensionSpec:
    return ExtensionSpec(
        section.tokens, section.min_frequency, section.max_length, section.missing_bytes, tuple(section.words)
    )


def _training(use: TrainVocabularySection, base: Tokenizer) -> TrainingSpec:
    """Keeps the base model's special tokens, their roles and its chat templates."""
    names = {id: name for name, id in base.special_tokens.items()}
    ids = {role: base.role_token(role) for role in ROLES}
    roles: dict[str, str] = {role: names[id] for role, id in ids.items() if id is not None and id in names}
    kept = sorted(base.special_tokens, key=lambda name: base.special_tokens[name])
    specials = tuple(dict.fromkeys([*kept, *(use.special_tokens or [])]))
    templates = base.chat_templates if isinstance(base, NamedTemplates) else {}
    others = {name: text for name, text in templates.items() if name != "default"}
    return TrainingSpec(use.vocab_size, specials, roles, base.adds_bos, base.chat_template, others)


class _SampleTexts:
    """The texts of records, again and again."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[str]:
        return (text for sample in self._samples for text in texts_of(sample))


def sample_texts(samples: Iterable[Sample]) -> Iterable[str]:
    """Returns the texts of samples; may be iterated again and again if the samples may."""
    return _SampleTexts(samples)
