"""`toolkit init`: a recipe to start from."""

from __future__ import annotations

from pathlib import Path

import click

from graftkit.errors import FolderError
from graftkit.store.files import write_text

__all__ = ["STARTER", "command"]

STARTER = """\
# A graftkit recipe. `toolkit plan {name}` checks it, `toolkit run {name}` runs it.
# Relative paths start at this file's folder.

model: {model}            # a folder with config.json, *.safetensors, tokenizer.json; or a .gguf file
data:
  train: {train}          # rows: messages, or prompt and completion, or text
  holdout: 0.05           # the share that training never sees, or a file
  max_length: 1024

quantizer: nf4            # how frozen weights are stored: none, int8, nf4
adapter: {{use: lora, rank: 16, alpha: 32, targets: all-linear}}

training:
  epochs: 1               # or steps: N
  tokens_per_step: 4096
  learning_rate: 2e-4
  seed: 0

evaluation: {{exact_match: 0}}   # N holdout rows to answer and compare, before and after
export: [peft, merged]
"""


def _quoted(value: str) -> str:
    """Returns a string as YAML writes it: bare where that means the same."""
    import yaml

    return yaml.safe_dump(value, allow_unicode=True, width=10_000).removesuffix("...\n").strip()


@click.command("init")
@click.argument("path", type=click.Path(dir_okay=False), default="recipe.yaml")
@click.option("--model", default="./model", show_default=True, help="The base model.")
@click.option("--train", default="train.jsonl", show_default=True, help="The rows.")
def command(path: str, model: str, train: str) -> None:
    """Write a recipe to start from to PATH (recipe.yaml)."""
    target = Path(path)
    if target.exists():
        raise FolderError("there is such a file already", where=path, hint="Give another name.")
    write_text(target, STARTER.format(name=path, model=_quoted(model), train=_quoted(train)))
    click.echo(f"wrote {path}")
