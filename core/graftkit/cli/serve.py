"""`toolkit serve`: an OpenAI-compatible endpoint for a run, an export, an adapter, a model's folder or a GGUF file."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftkit.cli.options import adapter_base, adapter_options, disable_option, host_of_run, offline_option
from graftkit.cli.signals import cancel_on_signals
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import say
from graftkit.errors import RequestError
from graftkit.visible import further_lines_indented

if TYPE_CHECKING:
    from graftkit.flow.preparation.plan_adapter import TokenizerOf
    from graftkit.serve.answers import AnswerQueue

__all__ = ["command"]

_KEY = "GRAFTKIT_API_KEY"

_ORIGIN = re.compile(r"(?P<scheme>https?)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?")
_USUAL_PORT, _LAST_PORT = {"http": "80", "https": "443"}, 65535

_END_WITHIN = 3
"""Seconds that the answer that is being made has to end, once the server is stopped."""


@click.command("serve")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address; any but this machine's own needs a key."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 for a free one."
)
@click.option("--name", help="What clients call the model; the folder's or file's name when left out.")
@click.option(
    "--max-new-tokens", type=click.IntRange(1), default=4096, show_default=True, help="Tokens of an answer at most."
)
@click.option(
    "--queue",
    "waiting",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Requests that may wait for others.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="An origin whose pages may ask, such as http://localhost:3000; may be repeated.",
)
@adapter_options
@disable_option
@offline_option
def command(
    source: str,
    host: str,
    port: int,
    name: str | None,
    max_new_tokens: int,
    waiting: int,
    origins: tuple[str, ...],
    base: str | None,
    quantizer: str | None,
    tokenizer: TokenizerOf | None,
    disable: tuple[str, ...],
) -> None:
    """Answer OpenAI's clients with a run, an export, an adapter, a model's folder or a GGUF file, until Ctrl-C.

    POST /v1/chat/completions and /v1/completions, streamed or not; GET /v1/models and /health. Of a model that gives
    texts vectors: POST /v1/embeddings. One answer is made at a time, the same as `toolkit generate` gives. Where the
    variable GRAFTKIT_API_KEY is set, clients must show that key.
    """
    _check_installed()
    key = _api_key()
    _check_origins(origins)
    from graftkit.serve.server import bind, is_loopback, serve, url_of

    with bind(host, port) as bound:
        if not is_loopback(bound) and key is None:
            hint = f"Set the variable {_KEY} to a key that clients have to show, or leave --host out."
            raise RequestError("other machines reach this address, and anyone there could ask", where=host, hint=hint)
        from graftkit.flow.answering.reload import check_source, reload, reload_any, unfinished
        from graftkit.flow.answering.reloaded_head import HeadModel
        from graftkit.serve.access import LOOPBACK_NAMES
        from graftkit.serve.answers import AnswerQueue
        from graftkit.serve.app import create_app
        from graftkit.serve.limits import Limits

        on = adapter_base(base, quantizer, tokenizer)
        with output_to_stderr():
            made_by = host_of_run([source], disable)
            head = check_source(source, made_by)
            load = reload_any if head is not None and head.kind == "embedding" else reload
            model = load(source, made_by, on)
        asked = [] if isinstance(model, HeadModel) else _how_it_is_asked(model.tokenizer.chat_template, model.prompts)
        notes = [*unfinished(Path(source)), *asked]
        for text in notes:
            click.echo(further_lines_indented(f"note: {text}"), err=True)
        queue, called, url = AnswerQueue(model, waiting=waiting), name or _name_of(source), url_of(bound)
        app = create_app(
            queue,
            called,
            limits=Limits(new_tokens=max_new_tokens),
            hosts=LOOPBACK_NAMES | {host.lower()} if is_loopback(bound) else None,
            origins=origins,
            api_key=key,
        )
        with cancel_on_signals(silent=True) as cancel:
            try:
                serve(app, bound, cancel, on_start=lambda: say([f"{called} at {url}"]), on_stop=queue.stop)
            except KeyboardInterrupt:
                _end_answers(queue, 0, 130)
                raise
            _end_answers(queue, _END_WITHIN, 0)


def _end_answers(queue: AnswerQueue, within: float, code: int) -> None:
    """Ends this process where an answer does not end in time, whose thread it would wait for otherwise."""
    with suppress(KeyboardInterrupt):
        if queue.ended(within):
            return
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _check_installed() -> None:
    missing = [package for package in ("starlette", "uvicorn") if find_spec(package) is None]
    if missing:
        raise RequestError(
            f"{' and '.join(missing)}, which serve requests, {'is' if len(missing) == 1 else 'are'} not installed",
            hint="pip install 'graftkit[serve]'",
        )


def _api_key() -> str | None:
    """Returns the key that clients have to show, or None for none.

    Raises:
        RequestError: The variable is set, and holds none that a header could carry.
    """
    key = os.environ.get(_KEY)
    if key is not None:
        from graftkit.serve.access import check_key

        check_key(key, _KEY)
    return key


def _check_origins(origins: tuple[str, ...]) -> None:
    for origin in origins:
        found = _ORIGIN.fullmatch(origin)
        port = found and found["port"]
        if origin != "*" and not (found and port != _USUAL_PORT[found["scheme"]] and int(port or 1) <= _LAST_PORT):
            raise RequestError(
                f"{origin!r} is no origin as browsers write it",
                where="--allow-origin",
                hint="One has a scheme, a host in small letters and a port that is not the usual one, and ends there: "
                "http://localhost:3000.",
            )


def _how_it_is_asked(template: str | None, prompts: str) -> list[str]:
    """Returns what the user should know of the two ways to ask."""
    if template is None:
        return ["the tokenizer has no chat template: /v1/completions continues texts"]
    if prompts == "plain":
        return [
            "trained on plain prompts: /v1/completions asks as in training, /v1/chat/completions in the chat template"
        ]
    return []


def _name_of(source: str) -> str:
    """Returns what a model is called: its folder's or its file's name."""
    path = Path(source)
    return (path.resolve() if path.exists() else path).name or source
