"""The callbacks' own recipe fields. Each has one that must be said, so that no run is followed unasked."""

from __future__ import annotations

from typing import Literal

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["MlflowConfig", "TensorBoardConfig", "WandbConfig"]


class TensorBoardConfig(ProviderConfig):
    """Where events are written."""

    folder: str = Field(min_length=1, description="the folder of events in the run's folder, such as tensorboard")


class WandbConfig(ProviderConfig):
    """Which run of Weights & Biases it becomes. What is left out is wandb's own choice, by its variables and files."""

    project: str = Field(min_length=1, description="the project")
    entity: str | None = Field(default=None, min_length=1, description="whose project; the user's own when left out")
    name: str | None = Field(
        default=None, min_length=1, description="the run's name; that of the run's folder when left out"
    )
    group: str | None = Field(default=None, min_length=1, description="the group that it belongs to")
    tags: list[str] = Field(default_factory=list, description="its tags")
    mode: Literal["online", "offline"] | None = Field(
        default=None,
        description="offline: files in the run's folder, which `wandb sync` uploads; so with --offline, too",
    )


class MlflowConfig(ProviderConfig):
    """Which run of MLflow it becomes."""

    experiment: str = Field(min_length=1, description="the experiment; it is made where there is none")
    tracking_uri: str | None = Field(
        default=None,
        min_length=1,
        description="the server or database, such as http://localhost:5000; MLflow's own choice when left out, "
        "MLFLOW_TRACKING_URI first",
    )
    name: str | None = Field(
        default=None, min_length=1, description="the run's name; that of the run's folder when left out"
    )
