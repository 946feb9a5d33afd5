"""Whom other programs tell of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftkit.recipe.conversion.draft import Draft, split_at_commas

__all__ = ["convert_tracking"]


def convert_tracking(draft: Draft) -> None:
    """Converts which programs are told of a run, each by the callback of its name.

    One that has a project, say, is told too, unless the file says otherwise, by another `report_to` or `use_NAME`.
    """
    listed = draft.settings.get("report_to") is not None
    said = draft.take("report_to")
    named = split_at_commas(said) if isinstance(said, str) else said if isinstance(said, list) else []
    asked = {str(name) for name in named} - {"none"}
    switched_off = {"wandb"} if draft.settings.get("wandb_mode") == "disabled" else set()
    name = draft.settings.get("run_name")
    for program, fields in _TRACKED.items():
        implied = not listed and draft.settings.get(f"use_{program}") is None and draft.settings.get(fields[0].key)
        wanted = draft.take(f"use_{program}") or program in asked or implied
        asked.discard(program)
        if not wanted or program in switched_off:
            continue
        found = {each.name: draft.take(each.key) or each.otherwise for each in fields}
        if "name" in found and not found["name"]:
            draft.settings.pop("run_name", None)
            found["name"] = name
        draft.put(f"plugins.{program}", {field: value for field, value in found.items() if value})
    draft.leave("report_to", sorted(asked), "callbacks are tensorboard, wandb and mlflow, and those of plugins")


@dataclass(frozen=True, slots=True)
class _Field:
    """A callback's field, the key that says it, and what that program takes where it does not."""

    name: str
    key: str
    otherwise: str | None = None


_TRACKED: Mapping[str, Sequence[_Field]] = {
    "tensorboard": [_Field("folder", "", "tensorboard")],
    "wandb": [
        _Field("project", "wandb_project", "huggingface"),
        _Field("entity", "wandb_entity"),
        _Field("name", "wandb_name"),
        _Field("mode", "wandb_mode"),
    ],
    "mlflow": [
        _Field("experiment", "mlflow_experiment_name", "Default"),
        _Field("tracking_uri", "mlflow_tracking_uri"),
        _Field("name", "mlflow_run_name"),
    ],
}
"""Callbacks, each with the field first that its own key asks for."""
