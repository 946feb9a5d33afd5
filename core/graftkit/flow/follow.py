"""What a process does that trains together with that of rank 0: the model as there, and its part of each step.

It writes nothing that stays, evaluates and exports nothing, and calls no plugin's hooks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from graftkit.errors import ProcessError
from graftkit.flow.events import Event
from graftkit.flow.folders.folder import ClaimedFolder
from graftkit.flow.plan_of_run import plan_of_run
from graftkit.flow.preparation.corpus import TOKENS, Corpus, read_corpus
from graftkit.flow.preparation.shared_weights import share_weights
from graftkit.flow.preparation.tokenizer import prepare_tokenizer
from graftkit.flow.state.cancel import CancelToken
from graftkit.flow.state.context import RunContext
from graftkit.host.host import PluginHost
from graftkit.recipe.load import RecipeSource, load_recipe
from graftkit.report.run_manifest import required
from graftkit.store.fingerprint import fingerprint
from graftkit.training.processes import Processes

if TYPE_CHECKING:
    import torch

    from graftkit.flow.preparation.base_model import LoadedModel

__all__ = ["follow", "lead", "let_go"]


def follow(
    recipe: RecipeSource,
    folder: Path,
    processes: Processes,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    host: PluginHost | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Takes part in the training of a run that the process of rank 0 does with `graftkit.run`.

    Args:
        recipe: The recipe that it runs.
        folder: The run's folder, on a disk that all processes share.
        processes: The processes; this one's rank is not 0.
        overrides: As for `run`.
        resume: As for `run`.
        host: As for `run`.
        cancel: As for `run`.

    Raises:
        RequestError: The recipe can't be run here.
        ProcessError: Another process has failed, is gone, or was started otherwise.
        Cancelled: This process was stopped.
    """
    cancel = cancel or CancelToken()
    loaded = load_recipe(recipe, overrides)
    host = host or PluginHost(disable=loaded.recipe.plugins.disable)
    planned = plan_of_run(loaded, host, folder if resume else None)
    with TemporaryDirectory(prefix="graftkit-") as place:
        claimed = ClaimedFolder(Path(place))
        run = RunContext(planned, host, claimed, _ignore, cancel, processes=processes)  # hooks are rank 0's
        prepare_tokenizer(run)

        from graftkit.flow.planning.targets import settle_targets
        from graftkit.flow.preparation.base_model import load_base, prepare_model
        from graftkit.flow.preparation.check_model import check_model

        run.plan = settle_targets(run.plan, run.vocabulary.change)
        share_weights(run)
        base = load_base(run, check_model(run))
        said = run.processes.next_command()
        _compare(run, base.device)
        folder = Path(said["folder"])
        written = replace(_written_corpus(run, folder), stop=said["stop"])
        _take_part(run, prepare_model(run, base, written.train, folder), written, folder)


def _written_corpus(run: RunContext, folder: Path) -> Corpus:
    """Returns the tokens that the process of rank 0 has written.

    Raises:
        ProcessError: They are not there.
    """
    from graftkit.flow.preparation.teacher import TEACHER

    place = TEACHER if run.plan.teacher else TOKENS
    tokens = folder / place / "train.safetensors"
    if not tokens.is_file():
        raise ProcessError(
            f"{tokens} is not there",
            hint="The run's folder must lie on a disk that all processes share.",
        )
    return read_corpus(run, folder, place)


def _take_part(run: RunContext, loaded: LoadedModel, written: Corpus, folder: Path) -> None:
    """Does its share of everything that the process of rank 0 announces, until that needs no other any more.

    Args:
        run: The run as it is in this process.
        loaded: The model.
        written: The tokens that the process of rank 0 has written.
        folder: The run's folder.
    """
    from graftkit.flow.preparation.reference import reference_beside, score_references
    from graftkit.flow.training.evaluate import score_holdout
    from graftkit.flow.training.holdout_watch import sample_of
    from graftkit.flow.training.rewards import sampling_in
    from graftkit.flow.training.training import make_trainer

    poll, recipe, objective = run.cancel.poll, run.plan.bound.recipe, run.plan.bound.objective_config
    sampling = sampling_in(run, written)
    while (part := run.processes.next_command()["part"]) is not None:
        if part == "reference":
            score_references(run, loaded, written, lambda done, total: poll())
            continue
        corpus = reference_beside(written, folder, objective)
        if part == "evaluation":
            score_holdout(run, loaded, corpus, sampling, lambda done, total: poll())
        else:
            sample = sample_of(corpus.holdout, recipe.evaluation, recipe.training.seed)
            make_trainer(run, loaded, corpus, sampling).follow(sample, poll)


def lead(run: RunContext, device: torch.device) -> None:
    """Has the other processes take part, once all that they need is there; of the process of rank 0.

    Args:
        run: The run.
        device: Where this process's model lies.

    Raises:
        ProcessError: One was started with another recipe, other records, another base model, or in another version;
            or two compute on one CUDA device.
    """
    if run.processes.count > 1:
        run.processes.announce({"folder": os.fspath(run.folder.absolute()), "stop": list(run.manifest.stop_tokens)})
        _compare(run, device)


def let_go(run: RunContext) -> None:
    """Tells the other processes that none of them is needed any more; of the process of rank 0."""
    run.processes.announce({"part": None})


def _compare(run: RunContext, device: torch.device) -> None:
    """Compares what every process was started with, and where it computes."""
    found = run.processes.gather([_started_with(run), _device_id(device)])
    every, devices = [started for started, _ in found], [used for _, used in found]
    for rank, used in enumerate(devices):
        first = devices.index(used)
        if used and first != rank:
            raise ProcessError(
                f"the processes of rank {first} and {rank} (of {len(every)}) compute on the same CUDA device",
                hint="Start as many processes on a machine as it has devices.",
            )
    for rank, other in enumerate(every):
        odd = [what for what, value in other.items() if value != every[0][what]]
        if odd:
            raise ProcessError(
                f"the process of rank {rank} (of {len(every)}) has another {' and another '.join(odd)} than rank 0's",
                hint="Start every process with the same command, installation and files.",
            )


def _device_id(device: torch.device) -> str:
    """Returns what no other CUDA device has, on any machine; "" for the CPU."""
    import torch

    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def _started_with(run: RunContext) -> Mapping[str, str]:
    """Returns what must be the same in every process, by the word for it."""
    versions, plan = run.manifest.environment, run.plan
    return {
        "version of graftkit": run.manifest.graftkit,
        "version of torch": versions.get("torch", ""),
        "version of transformers": versions.get("transformers", ""),
        "recipe": fingerprint(plan.bound.resolved()),
        "corpus": fingerprint([plan.samples.train.fingerprint, plan.samples.holdout.fingerprint]),
        "tokenizer": run.vocabulary.tokenizer.fingerprint,
        "base model": fingerprint(dict(required(run.manifest.model, "model").files)),
    }


def _ignore(event: Event) -> None:
    return None
