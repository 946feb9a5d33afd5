"""`toolkit tokenizer train`: a tokenizer from texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftkit.cli.options import disable_option, json_option, open_host
from graftkit.cli.terminal import json_line
from graftkit.cli.tokenizer_options import folder_options, format_option, refuse_backend
from graftkit.errors import DataError, ModelError, RequestError
from graftkit.interfaces.tokenizer import ROLES
from graftkit.interfaces.vocabulary_limits import MOST_PIECES

if TYPE_CHECKING:
    from graftkit.interfaces.vocabulary import TrainingSpec

__all__ = ["command"]

_MEASURED = 8 << 20


@click.command("train")
@click.argument("files", nargs=-1, required=True)
@click.option("--use", required=True, metavar="BACKEND", help="The family, such as byte-level; see `toolkit plugins`.")
@click.option("--vocab-size", required=True, type=click.IntRange(2, MOST_PIECES), help="Ids at most, special ones too.")
@click.option("--special", "specials", multiple=True, metavar="TOKEN", help="A special token; may be repeated.")
@click.option("--role", "roles", multiple=True, metavar="ROLE=TOKEN", help="Which special token is bos, eos, pad, unk.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="One of the family's own options.")
@click.option("--chat-template", type=click.Path(path_type=Path), help="A Jinja file that lays out conversations.")
@format_option
@folder_options
@disable_option
@json_option
def command(
    files: tuple[str, ...],
    use: str,
    vocab_size: int,
    specials: tuple[str, ...],
    roles: tuple[str, ...],
    options: tuple[str, ...],
    chat_template: Path | None,
    formats: tuple[str, ...],
    out: Path,
    overwrite: bool,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a tokenizer on FILES: text files, folders of them, patterns such as 'src/**/*.py'."""
    from graftkit.cli.progress import show_progress
    from graftkit.cli.watched_texts import watched
    from graftkit.corpus.texts import text_files
    from graftkit.flow.records.datasets import open_dataset
    from graftkit.flow.state.told_stage import told_stage
    from graftkit.interfaces.vocabulary import TrainableBackend
    from graftkit.recipe.options import bind_options
    from graftkit.vocabulary.folder import check_folder, check_formats, save_tokenizer_folder
    from graftkit.vocabulary.measure import measure
    from graftkit.vocabulary.record import tokenizer_facts

    host = open_host(disable)
    spec = _spec(vocab_size, specials, roles, chat_template)
    registered = host.registry.resolve("tokenizer", use, where="--use")
    config = bind_options(host.registry.config_class(registered), options)
    backend = host.registry.create(registered, config)
    if not isinstance(backend, TrainableBackend):
        raise refuse_backend(host, use, "train", "train")
    saved_as = check_formats(formats, backend.formats)  # type: ignore[attr-defined]
    check_folder(out, overwrite=overwrite)
    texts = text_files(files, partial(open_dataset, host))
    with show_progress() as on_event:
        with told_stage("training", on_event) as stage:
            tokenizer = backend.train(watched(texts, texts.bytes, stage.progress("KB")), spec)
        with told_stage("measuring", on_event):
            measured = measure(tokenizer, _first(texts, _MEASURED))
    facts = {
        **tokenizer_facts(tokenizer),
        "asked_vocab_size": vocab_size,
        "backend": registered.qualified_name,
        "options": config.model_dump(mode="json"),
        "corpus": {"files": len(texts.files), "bytes": texts.bytes, "fingerprint": texts.fingerprint},
        "bytes_per_token": measured.bytes_per_token,
        "lost_characters": dict(measured.lost),
    }
    save_tokenizer_folder(out, tokenizer, saved_as, "training.json", facts, overwrite=overwrite)
    click.echo(json_line({"folder": str(out), **facts}) if as_json else _summary(out, use, facts))


def _spec(vocab_size: int, specials: Sequence[str], roles: Sequence[str], chat_template: Path | None) -> TrainingSpec:
    from graftkit.interfaces.vocabulary import TrainingSpec
    from graftkit.suggest import known_names

    named: dict[str, str] = {}
    for role in roles:
        name, equals, token = role.partition("=")
        if not equals or not token:
            raise RequestError("the form is ROLE=TOKEN", where=f"--role {role}", hint="For example: --role eos='</s>'")
        if name not in ROLES:
            raise RequestError(f"'{name}' is no role", where=f"--role {role}", hint=known_names(name, ROLES))
        if named.setdefault(name, token) != token:
            raise RequestError(f"'{name}' is {named[name]!r} already", where=f"--role {role}", hint="Say it once.")
    tokens = tuple(dict.fromkeys([*specials, *named.values()]))
    return TrainingSpec(vocab_size, tokens, named, chat_template=_text(chat_template) if chat_template else None)


def _text(path: Path) -> str:
    from graftkit.corpus.template import ChatTemplate

    try:
        source = path.read_text(encoding="utf-8")
        ChatTemplate(source, {})
        return source
    except ModelError as error:
        raise DataError(error.message, where=f"--chat-template {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"can't be read: {reason}", where=f"--chat-template {path}") from None


def _first(texts: Any, size: int) -> Iterator[str]:
    """Yields texts, about so many characters of them."""
    for text in texts:
        yield text
        size -= len(text)
        if size <= 0:
            return


def _summary(out: Path, use: str, facts: dict[str, Any]) -> str:
    corpus, lost = facts["corpus"], facts["lost_characters"]
    files = f"{corpus['files']} files" if corpus["files"] != 1 else "1 file"
    shown = ", ".join(f"{character!r}" for character in list(lost)[:5])
    return "\n".join(
        [
            f"{use} tokenizer of {facts['vocab_size']:,} ids from {files}, {corpus['bytes'] / 1e6:.2f} MB"
            + ("; the texts give no more" if facts["vocab_size"] < facts["asked_vocab_size"] else ""),
            f"{facts['bytes_per_token']:.2f} bytes a token on those texts",
            "every text comes back from its tokens"
            if facts["lossless"]
            else f"texts may not come back exactly; lost here: {shown or 'nothing'}",
            f"saved {out}",
        ]
    )
