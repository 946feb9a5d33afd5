"""The command's entry: finds the subcommand, and turns errors into one readable message."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from graftkit._version import __version__
from graftkit.arguments import check_current_folder
from graftkit.cli.lazy_group import LazyGroup
from graftkit.cli.terminal import NobodyReads, guarded_streams, open_closed_streams
from graftkit.option_names import as_command
from graftkit.visible import further_lines_indented

__all__ = ["cli", "main"]

_COMMANDS = {
    "run": "Run a recipe: train, evaluate, export, prove.",
    "plan": "Check a recipe and say what it would do.",
    "preview": "Show training records as tokens, those in the loss marked.",
    "evaluate": "Evaluate runs, exports and models on records.",
    "generate": "Try a run or an export.",
    "serve": "Serve a run or an export to OpenAI's clients.",
    "export": "Add an export to a finished run, without training.",
    "compare": "Compare runs: recipes, curves, figures, answers.",
    "verify": "Prove an export again: load it afresh, compare logits.",
    "tokenizer": "Train, extend, analyze and compare tokenizers.",
    "plugins": "List what is installed, and from whom.",
    "plugin": "Start a plugin of your own, or test one.",
    "schema": "Print the recipe's JSON Schema, for editors.",
    "init": "Write a recipe to start from.",
}
"""The built-in commands with their one-line help, so that listing them imports none."""

_OTHER_PROGRAMS = {
    **dict.fromkeys(("train", "finetune", "fine-tune", "sft", "pt", "lora"), "toolkit run RECIPE"),
    **dict.fromkeys(
        ("dpo", "kto", "orpo", "reward", "rlhf"), "toolkit run RECIPE, whose `objective` says what is learnt"
    ),
    **dict.fromkeys(("chat", "inference", "infer"), "toolkit generate RUN_OR_MODEL"),
    **dict.fromkeys(("api", "vllm-serve"), "toolkit serve RUN_OR_MODEL"),
    **dict.fromkeys(("merge", "merge-lora"), "toolkit export RUN_OR_ADAPTER --to merged"),
    **dict.fromkeys(("quantize", "convert"), "toolkit export RUN_OR_ADAPTER --to gguf --set type=q4_k_m"),
    **dict.fromkeys(("eval", "test"), "toolkit evaluate RUN_OR_MODEL --data FILE"),
    "preprocess": "toolkit preview RECIPE, and toolkit plan RECIPE",
    "list": "toolkit plugins",
}
"""What does here what a command of Axolotl, LLaMA-Factory, TRL or ms-swift does, by its name."""


class _CommandsAndPlugins(LazyGroup):
    """The built-in commands, then those that plugins bring."""

    def more_commands(self) -> Mapping[str, click.Command]:
        return _plugin_commands()

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command, and keeps from click the errors at which it would exit without saying what happened.

        Raises:
            FolderError: There is no current folder.
        """
        check_current_folder()
        try:
            with as_command():
                return super().invoke(ctx)
        except (EOFError, BrokenPipeError) as error:
            raise _FromWithin from error


class _FromWithin(Exception):
    """What was raised is its cause."""


@functools.cache
def _plugin_commands() -> dict[str, click.Command]:
    """Returns the commands that third parties' plugins offer; a host is made only where there is one."""
    from graftkit.host.discovery import discover
    from graftkit.host.registry import BUILT_IN

    if all(record.distribution == BUILT_IN for record, _ in discover()):
        return {}
    from graftkit.cli.options import open_host

    return {str(command.name): command for command in open_host((), strict=False).commands()}


@click.group(
    cls=_CommandsAndPlugins,
    built_in=_COMMANDS,
    prefix="graftkit.cli.",
    other_programs=_OTHER_PROGRAMS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Plugins may bring more commands: `toolkit plugins` lists them. "
    "Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 130 stopped.",
)
@click.version_option(__version__, prog_name="toolkit")
@click.option("--traceback", is_flag=True, help="Show where in the code an error arose.")
def cli(traceback: bool) -> None:
    """Adapt a language model in one flow: tokenizer, frozen quantized weights, adapter, verified exports."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    show = "--traceback" in given
    open_closed_streams()
    with guarded_streams():
        code = _run([argument for argument in given if argument != "--traceback"], show)
    sys.exit(code)


@contextmanager
def _naming_plugins(arguments: Sequence[str]) -> Iterator[None]:
    """Names the plugin whose code raised an error in a built-in command; that of a plugin's own may end as it likes."""
    try:
        yield
    except BaseException:
        name = next((word for word in arguments if not word.startswith("-")), "")
        if name not in _COMMANDS or "graftkit.host.guard" not in sys.modules:
            raise
        from graftkit.host.guard import naming_plugins

        with naming_plugins():
            raise


def _run(arguments: list[str], show_traceback: bool) -> int:
    try:
        with _naming_plugins(arguments):
            result = cli.main(arguments, prog_name="toolkit", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort) as error:
        _tell("stopped" + _notes(error.__cause__ or error))
        return 130
    except NobodyReads as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.code
    except BaseException as error:
        if isinstance(error, _FromWithin) and error.__cause__ is not None:
            error = error.__cause__
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # as Rust's libraries fail
            raise
        if show_traceback:
            from graftkit.redact import without_secrets

            click.echo(without_secrets(traceback.format_exc()), err=True)
        return _explain(error, show_traceback)


_MEMORY_HINT = "End other programs, or allow more (`ulimit -v`); `toolkit plan RECIPE --memory SIZE` makes a run fit."

_FOLDER_HINT = "Free some space there, or name another folder for temporary files with TMPDIR."


def _notes(error: BaseException) -> str:
    return "".join(f"\n{further_lines_indented(note)}" for note in getattr(error, "__notes__", []))


def _explain(error: BaseException, shown: bool) -> int:
    from graftkit.errors import GraftkitError, PluginError, text_of
    from graftkit.host.discovery import discover

    notes = _notes(error)
    if isinstance(error, GraftkitError):
        label = "stopped" if error.exit_code == 130 else "error"
        _tell(f"{label}: {error}{notes}")
        return error.exit_code
    if isinstance(error, MemoryError):
        _tell(f"error: there is not enough memory for it{notes}\n{_MEMORY_HINT}")
        return 1
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error.strerror):
        # a library asks for one when it is imported, whether it needs it or not
        _tell(f"error: temporary files: can't be written: {error.strerror}{notes}\n{_FOLDER_HINT}")
        return 1
    try:
        discover()
    except PluginError as damaged:  # libraries read what distributions announce, too, and name none
        return _explain(damaged, shown)
    hint = "" if shown else "\nThis should have been caught earlier; --traceback shows where it arose."
    _tell(f"error: {type(error).__name__}: {further_lines_indented(text_of(error))}{notes}{hint}")
    return 1


def _tell(text: str) -> None:
    from graftkit.redact import without_secrets

    click.echo(without_secrets(text), err=True, color=True)
