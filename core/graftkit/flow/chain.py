"""The whole flow on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from graftkit.flow.events import Chosen
from graftkit.flow.preparation.corpus import Corpus, build_corpus
from graftkit.flow.preparation.shared_weights import share_weights, sharing_of
from graftkit.flow.preparation.tokenizer import prepare_tokenizer
from graftkit.flow.state.context import RunContext

if TYPE_CHECKING:
    from graftkit.flow.preparation.check_model import PlannedBase
    from graftkit.interfaces.exporter import Exporter

__all__ = ["run_stages"]


def run_stages(run: RunContext) -> None:
    """The chain. What needs no torch comes first: importing it takes seconds that a wrong request need not wait.

    Args:
        run: The run, which has just begun.

    Raises:
        RequestError: Something is asked for that can't be done, which only the model or the records could tell.
        RunError: A stage failed.
        Cancelled: It was stopped.
    """
    run.broadcast("graftkit_run_started")
    if run.resumed and run.resumed.made_by_others:
        run.notice("plan", f"{run.resumed.made_by_others}: what follows may be computed otherwise")
    for message in run.plan.notices:
        run.notice("plan", message)
    if run.plan.chosen and not (run.resumed and run.resumed.asked):
        run.emit(Chosen(run.plan.chosen))
    prepare_tokenizer(run)

    from graftkit.flow.exports.export import check_exports_replaceable, make_exporters, prove_exports
    from graftkit.flow.exports.refusals import refuse_early
    from graftkit.flow.planning.targets import settle_targets
    from graftkit.flow.preparation.check_model import check_model
    from graftkit.flow.preparation.settle_dtype import settle_dtype
    from graftkit.flow.preparation.settle_memory_apart import settle_memory_apart
    from graftkit.flow.reporting.report import write_report
    from graftkit.flow.training.answers import check_answerable
    from graftkit.flow.training.rewards import check_rewarded
    from graftkit.model.memory_back import give_memory_back
    from graftkit.model.whole_transformers import import_transformers

    check_exports_replaceable(run)
    import_transformers()
    run.settle(settle_dtype(run.plan).settled)
    run.plan = settle_targets(run.plan, run.vocabulary.change)
    run.record(forecast=dict(run.plan.forecast))
    for message in run.plan.notices:
        run.notice("plan", message)
    share_weights(run)
    exporters = make_exporters(run.plan, run.host)
    if not (run.resumed and run.resumed.finished):
        check_answerable(run.plan, run.host, run.vocabulary.encoder)
    refuse_early(run.plan, run.vocabulary, run.host, exporters, partial(run.notice, "plan"))
    planned, corpus = check_model(run), build_corpus(run)
    if not (run.resumed and run.resumed.finished):
        check_rewarded(run, corpus)
    settle_memory_apart(run, planned, corpus)
    _train_and_export(run, planned, corpus, exporters)
    del exporters
    prove_exports(run)
    write_report(run)
    give_memory_back()


def _train_and_export(run: RunContext, planned: PlannedBase, corpus: Corpus, exporters: Mapping[str, Exporter]) -> None:
    """Does what needs the model. Nothing holds it afterwards: proofs load what was exported into its room."""
    from graftkit.flow.exports.export import export_all
    from graftkit.flow.exports.refusals import refuse_merges
    from graftkit.flow.follow import lead, let_go
    from graftkit.flow.preparation.base_model import load_base, prepare_model
    from graftkit.flow.preparation.reference import with_reference
    from graftkit.flow.preparation.teacher import with_teacher
    from graftkit.flow.training.evaluate import evaluate, evaluate_base
    from graftkit.flow.training.rewards import sampling_in
    from graftkit.flow.training.training import train
    from graftkit.model.memory_back import give_freed_back

    corpus = with_teacher(run, planned, corpus)
    base = load_base(run, planned)
    evaluate_base(run, base)
    loaded = prepare_model(run, base, corpus.train)
    give_freed_back()
    refuse_merges(run, loaded, exporters)
    lead(run, loaded.device)
    corpus = with_reference(run, loaded, corpus)
    sampling = sampling_in(run, corpus)
    evaluate(run, loaded, corpus, "before", sampling)
    train(run, loaded, corpus, sampling)
    give_freed_back()
    evaluate(run, loaded, corpus, "after", sampling)
    if not sharing_of(run):
        let_go(run)
    export_all(run, loaded, corpus, exporters)
    if sharing_of(run):  # the others have handed over their parts of the weights
        let_go(run)
