"""The first stage: the tokenizer that the run uses, saved in its folder."""

from __future__ import annotations

from graftkit.flow.context import RunContext
from graftkit.store.files import atomic_folder

__all__ = ["save_tokenizer"]


def save_tokenizer(run: RunContext) -> None:
    """Writes `tokenizer/` and its fingerprint."""
    with run.stage("tokenizer") as stage:
        tokenizer = run.request.tokenizer
        with atomic_folder(run.folder / "tokenizer") as folder:
            tokenizer.save(folder)
        stage.facts |= {
            "backend": run.request.backend.provider.name,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
            "lossless": tokenizer.capabilities.lossless_bytes,
        }
        run.facts["tokenizer"] = dict(stage.facts)
