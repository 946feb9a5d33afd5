"""What a process does that trains together with that of rank 0: the model as there, and its part of each step.

It writes nothing that stays, evaluates and exports nothing, and calls no plugin's hooks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graftkit.errors import ProcessError
from graftkit.flow.cancel import CancelToken
from graftkit.flow.context import RunContext
from graftkit.flow.corpus import TOKENS
from graftkit.flow.events import Event
from graftkit.flow.run import RecipeSource, plan_of_run
from graftkit.flow.shared_weights import share_weights, sharing_of
from graftkit.flow.tokenizer import prepare_tokenizer
from graftkit.host.host import PluginHost
from graftkit.recipe.load import load_recipe
from graftkit.report.run_manifest import required
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import TokenStore
from graftkit.training.processes import Processes

__all__ = ["follow", "lead"]


class _FollowingRun(RunContext):
    """A run whose folder is a temporary one, and of which nobody is told."""

    def broadcast(self, hook: str, **arguments: Any) -> None:
        return None


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
        run = _FollowingRun(planned, host, Path(place), _ignore, cancel, processes=processes)
        prepare_tokenizer(run)

        from graftkit.flow.base_model import load_base, prepare_model
        from graftkit.flow.check_model import check_model
        from graftkit.flow.reference import reference_beside
        from graftkit.flow.targets import settle_targets
        from graftkit.flow.training import make_trainer

        run.plan = settle_targets(run.plan, run.vocabulary.change)
        share_weights(run)
        processes = run.processes
        loaded_model = prepare_model(run, load_base(run, check_model(run)))
        said = processes.next_command()
        _compare(run)
        tokens = Path(said["folder"]) / TOKENS / "train.safetensors"
        if not tokens.is_file():
            raise ProcessError(
                f"{tokens} is not there",
                hint="The run's folder must lie on a disk that all processes share.",
            )
        store = reference_beside(TokenStore.load(tokens), Path(said["folder"]), run.plan.bound.objective_config)
        make_trainer(run, loaded_model, store).follow(cancel.poll)
        if sharing_of(run):
            processes.next_command()  # that the model is not needed any more


def lead(run: RunContext) -> None:
    """Has the other processes join the training, once all that they need is there; of the process of rank 0.

    Raises:
        ProcessError: One was started with another recipe, other records, another base model, or in another version.
    """
    if run.processes.count > 1:
        run.processes.announce({"folder": os.fspath(run.folder.absolute())})
        _compare(run)


def _compare(run: RunContext) -> None:
    """Compares what every process was started with."""
    every = run.processes.gather(_started_with(run))
    for rank, other in enumerate(every):
        odd = [what for what, value in other.items() if value != every[0][what]]
        if odd:
            raise ProcessError(
                f"the process of rank {rank} (of {len(every)}) has another {' and another '.join(odd)} than rank 0's",
                hint="Start every process with the same command, installation and files.",
            )


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
