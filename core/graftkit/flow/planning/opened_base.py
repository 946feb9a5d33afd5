"""The base model of a plan: its files, and the tokenizer that records are encoded with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graftkit.flow.base_files.find_tokenizer import FoundTokenizer
from graftkit.flow.base_files.open_model import check_fits, embedding_rows, load_tokenizer, open_model
from graftkit.flow.folders.adapter_folder import AdapterFolder
from graftkit.flow.planning.continued_adapter import folder_vocabulary, other_tokenizer
from graftkit.flow.planning.head import with_run_head
from graftkit.flow.planning.saved_tokenizer import check_saved
from graftkit.flow.planning.vocabulary import VocabularyRequest, carrying, plan_vocabulary
from graftkit.flow.records.record_encoder import template_of
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.vocabulary.losses import check_promises

__all__ = ["OpenedBase", "PlannedTokenizer", "open_base", "plan_tokenizer"]


@dataclass(frozen=True, slots=True)
class OpenedBase:
    """The base model of a recipe.

    Attributes:
        source: The model source that opened it.
        own: Its files as they are.
        files: The same, whose configuration asks for a head of the kind that the objective learns by.
    """

    source: RegisteredProvider
    own: BaseModelFiles
    files: BaseModelFiles


@dataclass(frozen=True, slots=True)
class PlannedTokenizer:
    """What records are encoded with, as far as that is known before new tokens are learnt.

    Attributes:
        of_base: The base model's tokenizer, with the recipe's chat template where it gives one.
        backend_of_base: Its backend.
        rowless: What the user should know of ids that have no row in the embedding, where the vocabulary stays.
        beside: The tokenizer in the folder of the adapter that training goes on with, where it is another one.
        request: What the recipe, or that adapter, makes of the vocabulary; None where it stays the base model's.
    """

    of_base: Tokenizer
    backend_of_base: RegisteredProvider
    rowless: list[str]
    beside: FoundTokenizer | None
    request: VocabularyRequest | None

    @property
    def brought(self) -> VocabularyRequest | None:
        """The vocabulary that the adapter brings, if any."""
        return self.request if self.request and self.request.section is None else None

    @property
    def known(self) -> Tokenizer:
        """The tokenizer that takes the base model's place, where it is there already; else that one."""
        return self.request.replacement if self.request and self.request.replacement else self.of_base

    @property
    def backend(self) -> RegisteredProvider:
        """The backend of the known one."""
        return self.request.registered if self.request and self.request.replacement else self.backend_of_base

    def rows(self, files: BaseModelFiles) -> int | None:
        """Returns how many rows the embedding will have; None where each id gets one, or the files don't say."""
        return self.request.rows(files) if self.request else embedding_rows(files)


def open_base(bound: BoundRecipe, host: PluginHost, origin: AdapterFolder | None) -> OpenedBase:
    """Opens the base model.

    Args:
        bound: The recipe.
        host: The plugins.
        origin: The adapter that training goes on with, if any.

    Raises:
        ProviderError: No model source opens it.
        ModelError: It can't be used, or no head can be put on it.
    """
    model = bound.recipe.model
    source, own = open_model(host, model.path, model.use, bound.document.where(("model",)))
    return OpenedBase(source, own, with_run_head(bound, own, origin))


def plan_tokenizer(
    bound: BoundRecipe, host: PluginHost, base: OpenedBase, origin: AdapterFolder | None
) -> PlannedTokenizer:
    """Loads the base model's tokenizer, and checks what is to become of it.

    Args:
        bound: The recipe.
        host: The plugins.
        base: The base model.
        origin: The adapter that training goes on with, if any.

    Raises:
        RequestError: As `load_tokenizer`, `check_fits`, `folder_vocabulary` and `plan_vocabulary`.
        PluginCallError: A plugin's tokenizer does not hold what tokenizers promise.
    """
    files = base.files
    backend = host.registry.resolve("tokenizer", files.tokenizer_backend)
    template = template_of(bound)
    tokenizer = carrying(template, load_tokenizer(files, host.registry.create(backend)))
    rowless = check_fits(files, tokenizer)
    beside = other_tokenizer(origin, host, tokenizer) if origin else None
    brought = folder_vocabulary(origin, bound, files, backend, tokenizer, beside, template) if origin else None
    request = brought or plan_vocabulary(bound, host, backend, tokenizer.vocab_size, template)
    planned = PlannedTokenizer(tokenizer, backend, [] if request else rowless, beside, request)
    saved_by: Any = host.registry.create(planned.backend)
    check_promises(planned.known)
    check_saved(planned.known, saved_by)
    return planned
