"""Which of mlx-lm's tensors each of an architecture's is: it has those of a layer's experts otherwise."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

__all__ = ["Layouts", "are_layouts", "layout_of", "layouts_of", "stored_names", "unread"]

Layouts = Mapping[str, Sequence[str]]
"""For names of the architecture's in transformers, "#" in the place of numbers, mlx-lm's: several are one after the
other in its rows. `layers.#.mlp.experts.gate_up_proj` may be `layers.#.mlp.switch_mlp.gate_proj.weight` and
`layers.#.mlp.switch_mlp.up_proj.weight`."""


def unread(made: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns those of an architecture's tensors that are none of mlx-lm's, nor several of them.

    Args:
        made: Those of mlx-lm's that each is.
    """
    return [name for name, parts in made.items() if not parts]


def layout_of(name: str) -> str:
    """Returns a name with "#" in the place of numbers."""
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def layouts_of(made: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns the layouts of those tensors that have other names in mlx-lm.

    Args:
        made: Those of mlx-lm's that each of the architecture's is, of a model with few layers.
    """
    return {layout_of(name): [layout_of(part) for part in parts] for name, parts in made.items() if [name] != [*parts]}


def are_layouts(said: Mapping[str, Any]) -> TypeGuard[dict[str, list[str]]]:
    """Tells whether what a file says are layouts.

    Args:
        said: A JSON object.
    """
    return all(
        isinstance(parts, list) and parts and all(isinstance(part, str) for part in parts) for parts in said.values()
    )


def stored_names(stored: Collection[str], layouts: Layouts) -> Iterator[tuple[str, list[str]]]:
    """Yields the architecture's tensors, each with those that it is made of.

    Args:
        stored: The names of mlx-lm's tensors.
        layouts: Those of the architecture.
    """
    firsts = {parts[0]: (own, parts) for own, parts in layouts.items()}
    others = {part for parts in layouts.values() for part in parts[1:]}
    for name in stored:
        layout = layout_of(name)
        if layout in firsts:
            own, parts = firsts[layout]
            yield _numbered(own, name), [_numbered(part, name) for part in parts]
        elif layout not in others:
            yield name, [name]


def _numbered(layout: str, name: str) -> str:
    """Returns a layout with the numbers of a name, as far as it has places for them."""
    numbers = (part for part in name.split(".") if part.isdigit())
    return ".".join(next(numbers, part) if part == "#" else part for part in layout.split("."))
