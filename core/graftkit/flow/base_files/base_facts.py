"""What manifests say of a base model's files, and whether they are still those; imports without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graftkit.errors import ModelError
from graftkit.interfaces.file_state import FileStates
from graftkit.interfaces.model_source import BaseModelFiles, WatchedModel
from graftkit.report.run_manifest import BaseFacts
from graftkit.store.file_hashes import sha256_of

__all__ = ["base_facts", "check_as_opened", "check_unchanged", "hashed_as_read"]


def base_facts(files: BaseModelFiles) -> BaseFacts:
    """Returns what a manifest says of a base model: it reads every file.

    Raises:
        ModelError: A file can't be read, or is not the one that was opened, where its source can tell.
    """
    try:
        hashes = {path.name: sha256_of(path) for path in files.files}
    except OSError as error:
        raise ModelError(f"a file can't be read: {error.strerror}", where=str(error.filename)) from error
    check_as_opened(files)
    return BaseFacts(reference=files.reference, files=hashes)


def check_as_opened(files: BaseModelFiles) -> None:
    """Makes sure that a base model's files are still those that were opened, where their source can tell.

    Raises:
        ModelError: They aren't.
    """
    if isinstance(files, WatchedModel):
        files.check_unchanged()


@contextmanager
def hashed_as_read(
    files: BaseModelFiles, before: BaseFacts | None = None, was: str = "the adapter was trained on"
) -> Iterator[BaseFacts]:
    """Gives what a manifest says of the files that are read meanwhile, or refuses them.

    They are compared with those that an adapter was trained on before anything is read, and with themselves when all
    is read: so what is said is true of what was read, whoever writes to the files.

    Args:
        files: The opened base model.
        before: What an adapter was trained on, or None.
        was: What they were to be, for errors.

    Raises:
        ModelError: They are not those files, or were changed since they were opened.
    """
    states = FileStates.of(files.files)
    found = base_facts(files)
    check_unchanged(before, found, was)
    yield found
    states.check()
    check_as_opened(files)


def check_unchanged(before: BaseFacts | None, now: BaseFacts, was: str = "the adapter was trained on") -> None:
    """Compares the base model's files with those that an adapter was trained on.

    Args:
        before: What it was trained on, or None.
        now: What there is.
        was: What the files were to be, for errors.

    Raises:
        ModelError: They differ: the adapter means nothing on other weights.
    """
    for name, sha256 in before.files.items() if before else ():
        if now.files.get(name) != sha256:
            raise ModelError(
                f"{name} is not the file that {was}",
                where=now.reference,
                hint="Put that file back; the run's manifest has its sha256.",
            )
