"""The fourth stage: training, a line of metrics a step, and the adapter's own tensors at the end."""

from __future__ import annotations

from dataclasses import asdict

from graftkit.flow.base_model import LoadedModel
from graftkit.flow.context import RunContext
from graftkit.flow.corpus import Corpus
from graftkit.flow.events import StepFinished
from graftkit.host.lifecycle import StepInfo
from graftkit.model.adapt import AdaptedModel
from graftkit.store.files import LineFile, atomic_folder, write_json
from graftkit.training.loop import Trainer

__all__ = ["save_adapter", "train"]


def train(run: RunContext, loaded: LoadedModel, corpus: Corpus) -> None:
    """Trains, writes `metrics.jsonl` and `adapter/`.

    When it is stopped half-way the adapter is saved as far as it came, and the manifest says how far that is.
    """
    model = loaded.model
    metrics = LineFile(run.folder / "metrics.jsonl")
    parameters = list(model.trainable_parameters().values())
    trainer = Trainer(model.network, parameters, corpus.train, run.request.bound.recipe.training, loaded.device)
    seen: list[StepInfo] = []

    def on_step(step: StepInfo) -> None:
        seen.append(step)
        metrics.append({key: value for key, value in asdict(step).items() if key != "steps"})
        run.facts["progress"] = {"stage": "training", "step": step.step, "steps": step.steps}
        run.emit(StepFinished(step))
        run.broadcast("graftkit_step_finished", step=step)

    with run.stage("training") as stage:
        try:
            trainer.run(on_step, run.cancel.poll)
        finally:
            metrics.close()
            if seen:
                save_adapter(run, model, seen[-1].step)
        stage.facts |= _facts(seen)


def save_adapter(run: RunContext, model: AdaptedModel, step: int) -> None:
    """Writes `adapter/`: every tensor of the adapter by layer and name, and what is needed to load them."""
    from safetensors.torch import save_file

    with atomic_folder(run.folder / "adapter") as folder:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in model.adapter_state().items()}
        save_file(tensors, folder / "adapter.safetensors", metadata={"format": "graftkit"})
        facts = {
            "step": step,
            "adapter": run.facts["providers"]["adapter"],
            "quantizer": run.facts["providers"]["quantizer"],
            "targets": run.request.targets,
            "tokenizer_fingerprint": run.request.tokenizer.fingerprint,
            "base": run.facts["model"],
        }
        write_json(folder / "adapter.json", facts)


def _facts(steps: list[StepInfo]) -> dict[str, object]:
    seconds = sum(step.seconds for step in steps)
    tokens = sum(step.tokens for step in steps)
    return {
        "steps": len(steps),
        "tokens": tokens,
        "supervised_tokens": sum(step.supervised_tokens for step in steps),
        "first_loss": steps[0].loss,
        "last_loss": steps[-1].loss,
        "tokens_per_second": round(tokens / seconds, 1),
    }
