"""The tokenizer that a run uses: made where the recipe asks for it, saved in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError, ModelError, RecipeError, RequestError
from graftkit.flow.base_files.open_model import check_fits, embedding_rows
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.saved_tokenizer import check_saved
from graftkit.flow.planning.vocabulary import BuiltTokenizer, Vocabulary, build_tokenizer, sample_texts
from graftkit.flow.records.chat import chat_options, template_hash
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.host.guard import wrong_result
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, VocabularyChange
from graftkit.interfaces.vocabulary_limits import MOST_PARTS
from graftkit.option_names import option
from graftkit.recipe.schema.tokenizer import TokenizerSection
from graftkit.store.files import write_json
from graftkit.store.folders import atomic_folder
from graftkit.vocabulary.losses import check_promises

__all__ = ["fewer_than_asked", "make_vocabulary", "prepare_tokenizer"]

_KEPT = (
    ("fingerprint", "tokenizer", "The base model's files, or the corpus that it was learnt from,"),
    ("chat_template", "chat template", "data.chat_template, or the base model's own,"),
)
"""What of the tokenizer a resumed run must find as it was: its key in the manifest, its name, and what changes it."""


def prepare_tokenizer(run: RunContext) -> None:
    """Makes the tokenizer and writes `tokenizer/`, and `vocabulary.json` where the base's rows are not enough.

    Raises:
        RequestError: It can't be made as the recipe asks.
        DataError: A resumed run would go on with another tokenizer.
    """
    with run.stage("tokenizer") as stage:
        if run.plan.vocabulary:
            run.vocabulary = _made(run, stage)
        else:
            for text in check_fits(run.plan.files, run.plan.tokenizer):
                stage.notice(text)
        tokenizer = run.vocabulary.tokenizer
        found = {"fingerprint": tokenizer.fingerprint, "chat_template": template_hash(tokenizer)}
        _check_resumed(run, found)
        with atomic_folder(run.folder / "tokenizer", keep=run.files.theirs("tokenizer")) as folder:
            tokenizer.save(folder)
        stage.facts |= {
            "backend": run.vocabulary.registered.provider.name,
            "vocab_size": tokenizer.vocab_size,
            **found,
            "lossless": tokenizer.capabilities.lossless_bytes,
        }
        run.record(tokenizer=dict(stage.facts))


def _made(run: RunContext, stage: StageScope) -> Vocabulary:
    vocabulary, built = make_vocabulary(run.plan)
    if built.change:
        write_json(run.folder / VOCABULARY, _facts(vocabulary.base, built, built.change))
        _tell(stage, built, built.change)
    if run.plan.vocabulary and (said := fewer_than_asked(run.plan.vocabulary.section, built)):
        stage.notice(said)
    return vocabulary


def fewer_than_asked(section: TokenizerSection | None, built: BuiltTokenizer) -> str:
    """Says that texts gave fewer tokens than the recipe asks for; "" where they gave as many.

    Args:
        section: The recipe's; None where an adapter says the vocabulary.
        built: What came of it.
    """
    if section and section.extend and built.plan:
        asked, found = section.extend.tokens, len(built.plan.tokens)
        key, more = "extend.tokens", "more text or a lower tokenizer.extend.min_frequency"
    elif section and section.train:
        asked, found = section.train.vocab_size, built.tokenizer.vocab_size
        key, more = "train.vocab_size", "more text"
    else:
        return ""
    return f"tokenizer.{key} asks for {asked:,}, and there are {found:,}: {more} gives more" if found < asked else ""


def make_vocabulary(plan: RunPlan) -> tuple[Vocabulary, BuiltTokenizer]:
    """Makes the vocabulary that a plan names, which may take as long as learning a tokenizer does.

    Raises:
        RequestError: It can't be made.
        PluginCallError: What its backend made does not keep what every tokenizer promises.
    """
    asked, base = plan.vocabulary, plan.tokenizer
    assert asked is not None
    texts: Iterable[str] = asked.corpus if asked.corpus is not None else sample_texts(plan.samples.train)
    rows = embedding_rows(plan.files)
    if rows is None:
        raise ModelError("nothing says how many rows its embedding has", where=plan.files.reference)
    try:
        built = build_tokenizer(asked, base, rows, texts)
    except RequestError as error:
        error.where = _place_of(error, plan)
        raise
    check_promises(built.tokenizer)
    if asked.replacement is None:
        check_saved(built.tokenizer, asked.backend)
    made = asked.section is not None  # or else the rows of an adapter's folder are trained on
    if made and built.change and built.change.ids and built.tokenizer.fingerprint == base.fingerprint:
        raise wrong_result(built.tokenizer, "fingerprint", "gave that of the base's tokenizer, which has other ids")
    if built.change and not built.change.ids and not built.change.moves_ids:
        if asked.section and asked.section.replace:
            raise RecipeError(
                "tokenizer.replace: it has the base model's tokens, each with the same id: there are no rows to train",
                where=plan.bound.document.where(("tokenizer", "replace")),
                hint="Leave the section out. For what it does otherwise put its files into a copy of the base model's "
                "folder, and name that as `model`; for its chat template alone say data.chat_template.",
            )
        raise RecipeError(
            "the tokenizer comes out as the base model's: there is nothing new in it",
            where="tokenizer",
            hint="The corpus may be too small: a lower min_frequency or more text helps; or leave the section out.",
        )
    if built.change and sum(map(len, built.change.parts)) > MOST_PARTS:
        raise RecipeError(
            f"the new tokens stand for over {MOST_PARTS:,} of the base model's together",
            where=plan.bound.document.where(("tokenizer",)),
            hint="Ask for fewer tokens, or shorter ones with max_length.",
        )
    template = chat_template_of(built.tokenizer, plan.today, chat_options(plan.bound))
    encoder = plan.encoder.for_tokenizer(built.tokenizer, template, asked.rows(plan.files))
    return Vocabulary(built.tokenizer, asked.registered, encoder, base, built.change, texts), built


def _place_of(error: RequestError, plan: RunPlan) -> str:
    """Names what was wrong, where the backend can't: it knows no recipe, nor where the base model lies."""
    if isinstance(error, ModelError) and plan.vocabulary and plan.vocabulary.section and plan.vocabulary.section.extend:
        return plan.files.reference
    return error.where or plan.bound.document.where(("tokenizer",))


def _check_resumed(run: RunContext, found: Mapping[str, str | None]) -> None:
    """Refuses to go on with another tokenizer, or another chat template, than the run was started with."""
    before = run.resumed.manifest.tokenizer if run.resumed else None
    for key, what, hint in _KEPT:
        was, now = getattr(before, key, None), found[key]
        if was and was != now:
            raise DataError(
                f"the run was started with the {what} {was[:12]}, which would now be {now[:12] if now else 'none'}",
                where=str(run.folder),
                hint=f"{hint} has changed: put it back, or start anew with {option('overwrite')}.",
            )


def _facts(base: Tokenizer, built: BuiltTokenizer, change: VocabularyChange) -> dict[str, Any]:
    return {
        "base_fingerprint": base.fingerprint,
        "fingerprint": built.tokenizer.fingerprint,
        **change.to_json(),
        "tokens": _tokens(built.plan) if built.plan else [],
    }


def _tokens(plan: ExtensionPlan) -> list[dict[str, Any]]:
    return [{"id": t.id, "text": t.data.decode("utf-8", "backslashreplace"), "uses": t.uses} for t in plan.tokens]


def _tell(stage: StageScope, built: BuiltTokenizer, change: VocabularyChange) -> None:
    """Says what changes, as facts and where the user should know it."""
    plan = built.plan
    stage.facts |= {"change": change.kind, "new_rows": len(change.ids), "rows": change.size}
    if plan is None:
        return
    saved = 1 - plan.tokens_after / plan.base_tokens if plan.base_tokens else 0.0
    stage.facts |= {
        "coarsens": plan.coarsens,
        "scaffolding": len(plan.scaffolding),
        "corpus_tokens": {"base": plan.base_tokens, "extended": plan.tokens_after, "saved": round(saved, 4)},
    }
    if not plan.coarsens:
        stage.notice(
            "texts may become other tokens of the base's, too, also where no new one stands: this kind of tokenizer "
            "does more than join tokens that the base makes"
        )
    if len(plan.scaffolding) > len(plan.tokens) // 2:
        stage.notice(f"{len(plan.scaffolding)} of {len(plan.tokens)} new tokens are never used by themselves")
