"""`toolkit tokenizer extend`: more tokens for a tokenizer that a model knows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftkit.cli.options import disable_option, json_option, open_host
from graftkit.cli.terminal import json_line
from graftkit.cli.tokenizer_options import (
    extendable,
    folder_options,
    format_option,
    min_frequency_option,
    reference,
    use_option,
)
from graftkit.errors import DataError
from graftkit.interfaces.vocabulary_limits import MOST_IDS

if TYPE_CHECKING:
    from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec

__all__ = ["command"]


@click.command("extend")
@click.argument("base")
@click.argument("files", nargs=-1)
@click.option("--tokens", required=True, type=click.IntRange(0, MOST_IDS), help="How many tokens to learn, at most.")
@min_frequency_option
@click.option("--max-length", type=click.IntRange(2, 1_000_000), help="Characters of a token at most.")
@click.option("--word", "words", multiple=True, metavar="TEXT", help="A text to become one token; may be repeated.")
@click.option(
    "--missing-bytes/--no-missing-bytes", default=True, help="Add the bytes that a base lacks, as by default."
)
@use_option
@format_option
@folder_options
@disable_option
@json_option
def command(
    base: str,
    files: tuple[str, ...],
    tokens: int,
    min_frequency: int,
    max_length: int | None,
    words: tuple[str, ...],
    missing_bytes: bool,
    use: str | None,
    formats: tuple[str, ...],
    out: Path,
    overwrite: bool,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add tokens for the texts in FILES to the tokenizer BASE: a tokenizer's folder or file, or a model.

    No id of BASE moves, so a model keeps what it knows of them; only the new tokens' rows are new to it. extension.json
    lists the new tokens, each with the ids that stood for it before.
    """
    from graftkit.cli.progress import show_progress
    from graftkit.cli.watched_texts import watched
    from graftkit.corpus.texts import text_files
    from graftkit.flow.base_files.find_tokenizer import find_tokenizer
    from graftkit.flow.records.datasets import open_dataset
    from graftkit.flow.state.told_stage import told_stage
    from graftkit.interfaces.vocabulary import ExtensionSpec
    from graftkit.vocabulary.folder import check_folder, check_formats, save_tokenizer_folder
    from graftkit.vocabulary.record import extension_record

    if tokens and not files:
        raise DataError("tokens are learnt from texts: name some FILES", where="extend", hint="Or say --tokens 0.")
    host = open_host(disable)
    check_folder(out, overwrite=overwrite)
    texts = text_files(files, partial(open_dataset, host)) if files else None
    found = find_tokenizer(host, reference(base), use)
    backend = extendable(host, found)
    saved_as = check_formats(formats, backend.formats)  # type: ignore[attr-defined]
    spec = ExtensionSpec(tokens, min_frequency, max_length, missing_bytes, words)
    spec.check_room(found.tokenizer.vocab_size)
    with show_progress() as on_event, told_stage("extending", on_event) as stage:
        read = watched(texts, texts.bytes, stage.progress("KB")) if texts else ()
        plan = backend.extend(found.tokenizer, read, spec)
    record = extension_record(found.tokenizer, plan, spec) | {
        "backend": found.registered.qualified_name,
        "corpus": texts and {"files": len(texts.files), "bytes": texts.bytes, "fingerprint": texts.fingerprint},
    }
    summary = _summary(plan, spec)  # a tokenizer that can't be tried is not saved
    save_tokenizer_folder(out, plan.tokenizer, saved_as, "extension.json", record, overwrite=overwrite)
    if as_json:
        click.echo(json_line({"folder": str(out), **record}))
        return
    click.echo(f"{base}: {found.tokenizer.vocab_size:,} ids, {plan.tokenizer.vocab_size:,} now")
    click.echo("\n".join(f"  {line}" for line in summary))
    click.echo(f"saved {out}")


def _summary(plan: ExtensionPlan, spec: ExtensionSpec) -> list[str]:
    """Says what was added and what it does."""
    from graftkit.vocabulary.analyze import learnt_tokens
    from graftkit.vocabulary.losses import describe_losses, lost_characters

    single = len(plan.tokens) - len(learnt_tokens(plan.tokens))
    words = [token for token in plan.tokens if token.data in {word.encode() for word in spec.words}]
    learnt = len(plan.tokens) - single - len(words)
    lines = [f"{learnt:,} tokens learnt" + (f", {len(words)} given as words" if spec.words else "")]
    if learnt < spec.tokens:
        lines[0] += f"; the texts hold no more that occur {spec.min_frequency} times"
    if single:
        lines.append(f"bytes that the base lacked, tokens of their own now: {single}")
    if plan.base_tokens:
        saved = 1 - plan.tokens_after / plan.base_tokens
        lines.append(
            f"these texts take {plan.tokens_after:,} tokens in place of {plan.base_tokens:,}, {saved:.1%} fewer; "
            "what other texts save, `toolkit tokenizer analyze` tells"
        )
        scaffolding = len(learnt_tokens(plan.scaffolding))
        lines.append(f"{scaffolding:,} of the new tokens are scaffolding: longer ones stand in their place")
    lines.append(
        "every text is cut as before, but for tokens that are joined"
        if plan.coarsens
        else "a text that a new token comes up in may be cut otherwise around it, not only joined"
    )
    lost = lost_characters(plan.tokenizer)
    if lost:
        lines.append(f"still lost: {describe_losses(lost)}")
    return lines
