"""The callbacks' own recipe fields. Each has one that must be said, so that no run is followed unasked."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from graftkit import ProviderConfig
from pydantic import Field, field_validator

__all__ = ["MlflowConfig", "TensorBoardConfig", "WandbConfig"]

_RUNS_OWN = ("adapter", "adapter-from", "checkpoints", "exports", "records", "teacher", "tokenizer", "tokens")
"""The folders that a run writes in its own."""
_SECRET = re.compile(r"passw|pwd|secret|token|(api|access)_?key", re.IGNORECASE)
"""What a parameter of an address has in its name that is not to be known."""


class TensorBoardConfig(ProviderConfig):
    """Where events are written."""

    folder: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="the folder of events in the run's folder, such as tensorboard",
    )

    @field_validator("folder")
    @classmethod
    def _not_the_runs_own(cls, folder: str) -> str:
        """Refuses folders in which the run itself writes."""
        if folder.lower() in _RUNS_OWN:
            raise ValueError(
                f"'{folder}' is a folder that the run itself writes\ngive another one, such as tensorboard"
            )
        return folder


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

    @field_validator("tracking_uri")
    @classmethod
    def _no_secret(cls, uri: str | None) -> str | None:
        """Refuses addresses with a password, which a run would keep, and show, with its recipe."""
        try:
            said = urlsplit(uri or "")
            web = said.scheme in ("http", "https")
            named = [name for name, _ in parse_qsl(said.query) if _SECRET.search(name)]
            secret = bool(said.password or (web and said.username) or named)
        except ValueError:
            raise ValueError("plugins.mlflow.tracking_uri is no address") from None
        if secret:
            raise ValueError(
                "plugins.mlflow.tracking_uri holds a password or a token, which the run's files would show\n"
                "leave it out of the recipe: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD say it of a server, "
                "MLFLOW_TRACKING_URI of a database"
            )
        return uri
