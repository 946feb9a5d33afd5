"""Which modules a recipe's new adapter trains as wholes beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftkit.errors import TargetError
from graftkit.flow.planning.run_plan import WholeModules
from graftkit.suggest import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graftkit.model.model_plan import ModelPlan
    from graftkit.recipe.bind import BoundRecipe

__all__ = ["named_wholes"]


def named_wholes(bound: BoundRecipe, planned: ModelPlan, targets: Sequence[str]) -> WholeModules:
    """Returns the parameters of the modules that a recipe's `adapter.modules_to_save` names.

    Args:
        bound: The recipe.
        planned: The model.
        targets: The dotted paths of the layers that are adapted.

    Raises:
        TargetError: No module is called so, or one can't be trained as a whole.
    """
    from graftkit.flow.planning.check_adapter import whole_refusal
    from graftkit.model.head import is_of_head
    from graftkit.model.outer_layers import ties_output
    from graftkit.model.parts import is_text
    from graftkit.model.whole import outer_names

    section, where = bound.recipe.adapter, bound.document.where(("adapter", "modules_to_save"))
    parameters = dict(planned.skeleton.named_parameters(remove_duplicate=False))
    refusal, is_of_text = whole_refusal(planned, targets), is_text(planned.skeleton)
    found: dict[str, tuple[int, ...]] = {}
    for wanted in section.modules_to_save:
        named = [name for name in parameters if f".{wanted}." in f".{name.rpartition('.')[0]}."]
        own = [name for name in named if is_of_text(name)] or named  # towers have modules of the same names
        if not own:
            possible = sorted({_module(name) for name in parameters if not refusal(name)})
            raise TargetError(
                f"adapter.modules_to_save: no module with parameters is called '{wanted}'",
                where=where,
                hint=f"{nearest(wanted, possible)}Modules that can be trained as wholes end in: {', '.join(possible)}.",
            )
        for name in own:
            what = "a part of the head, which is trained anyway" if is_of_head(name, planned.head) else refusal(name)
            if what:
                raise TargetError(
                    f"adapter.modules_to_save: '{wanted}' holds '{name}', {what}",
                    where=where,
                    hint="Leave it out; adapter.targets names the layers that are adapted.",
                )
            found[name] = tuple(parameters[name].shape)
    if section.ensure_weight_tying:
        outer = outer_names(planned.skeleton) if ties_output(planned.skeleton) else None
        if outer is None or found.keys().isdisjoint(outer):
            raise TargetError(
                "adapter.ensure_weight_tying changes nothing: the base model ties no output layer to its embedding, or "
                "adapter.modules_to_save names neither of them",
                where=bound.document.where(("adapter", "ensure_weight_tying")),
                hint="Leave it out.",
            )
        found |= {name: tuple(parameters[name].shape) for name in outer}
    return WholeModules(found, section.ensure_weight_tying)


def _module(parameter: str) -> str:
    """Returns the name of the module that a parameter is of."""
    return parameter.rpartition(".")[0].rpartition(".")[2]
