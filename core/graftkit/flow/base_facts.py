"""What manifests say of a base model's files, and whether they are still those; imports without torch."""

from __future__ import annotations

from graftkit.errors import ModelError
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.report.run_manifest import BaseFacts
from graftkit.store.files import sha256_of

__all__ = ["base_facts", "check_unchanged"]


def base_facts(files: BaseModelFiles) -> BaseFacts:
    """Returns what a manifest says of a base model: it reads every file."""
    return BaseFacts(reference=files.reference, files={path.name: sha256_of(path) for path in files.files})


def check_unchanged(before: BaseFacts | None, now: BaseFacts) -> None:
    """Compares the base model's files with those that an adapter was trained on.

    Raises:
        ModelError: They differ: the adapter means nothing on other weights.
    """
    for name, sha256 in before.files.items() if before else ():
        if now.files.get(name) != sha256:
            raise ModelError(
                f"{name} is not the file that the adapter was trained on",
                where=now.reference,
                hint="Put that file back; the run's manifest has its sha256.",
            )
