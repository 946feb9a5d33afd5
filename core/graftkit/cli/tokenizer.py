"""`toolkit tokenizer`: tokenizers on their own."""

from __future__ import annotations

import click

from graftkit.cli.lazy_group import LazyGroup

__all__ = ["command"]

_COMMANDS = {
    "train": "Train a tokenizer on texts.",
    "extend": "Add tokens for your texts to a tokenizer that a model knows.",
    "analyze": "Find out whether extending is worth it, and by how many tokens.",
    "compare": "Put tokenizers side by side on one corpus.",
}


@click.group("tokenizer", cls=LazyGroup, built_in=_COMMANDS, prefix="graftkit.cli.tokenizer_")
def command() -> None:
    """Train, extend, analyze and compare tokenizers.

    A tokenizer is a folder, a file, or a model whose own it is. FILES are UTF-8 text files, folders of them, or
    patterns such as 'src/**/*.py'; of .jsonl files the records' texts are read.
    """
