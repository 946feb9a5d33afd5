"""Which of an architecture's published tensors each of mlx-lm's is: it stacks those of a layer's experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["Layouts", "layout_of", "layouts_of", "published_names", "unread"]

Layouts = Mapping[str, str]
"""For names of mlx-lm's, "#" in the place of numbers, the published ones, "*" in the place of a row's: of
`layers.#.mlp.switch_mlp.up_proj.weight` the row 3 may be `layers.#.mlp.experts.*.up_proj.weight` of the expert 3."""


def unread(made: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns those of mlx-lm's tensors that are no published ones, nor stacks of such.

    Args:
        made: The published tensors that each is made of.
    """
    return [name for name, parts in made.items() if not parts]


def layout_of(name: str) -> str:
    """Returns a name with "#" in the place of numbers."""
    return ".".join(_numbers(name)[0])


def layouts_of(made: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the layouts of those tensors that have other names.

    Args:
        made: The published tensors that each is made of, of a model with few layers and experts.
    """
    found = {}
    for name, parts in made.items():
        layout, _ = _numbers(parts[0])
        if len(parts) > 1:
            pairs = zip(parts[0].split("."), parts[1].split("."), layout, strict=True)
            layout = ["*" if one != other else part for one, other, part in pairs]
        found[layout_of(name)] = ".".join(layout)
    return {own: other for own, other in found.items() if own != other}


def published_names(name: str, rows: int, layouts: Layouts) -> list[str]:
    """Returns the published tensors that one of mlx-lm's is made of: itself, or one for each of its rows.

    Args:
        name: The tensor's name.
        rows: The size of its first dimension.
        layouts: Those of the architecture.
    """
    numbers = _numbers(name)[1]
    layout = layouts.get(layout_of(name))
    if layout is None:
        return [name]
    left = iter(numbers)
    filled = [str(next(left, part)) if part == "#" else part for part in layout.split(".")]
    if "*" not in filled:
        return [".".join(filled)]
    return [".".join(str(row) if part == "*" else part for part in filled) for row in range(rows)]


def _numbers(name: str) -> tuple[list[str], list[int]]:
    """Returns a name's parts, "#" in the place of numbers, and the numbers."""
    parts = name.split(".")
    return ["#" if part.isdigit() else part for part in parts], [int(part) for part in parts if part.isdigit()]
