"""What training minimizes in other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftkit.errors import RecipeError
from graftkit.recipe.conversion.draft import Draft

__all__ = ["convert_objective"]

_REWARDED = frozenset({"reward_funcs", "num_generations"})
"""What settings have that learn from rewards: which of its trainers a file of TRL's is for it does not say."""

_OF_OTHER_OBJECTIVES = ("beta", "desirable_weight", "undesirable_weight", "center_rewards_coefficient")


def convert_objective(draft: Draft) -> None:
    """Converts what training minimizes."""
    name = draft.take("rl", "stage") or ("reward" if draft.take("reward_model") else None)
    loss = draft.take("pref_loss", "loss_type", "dpo_loss_type")
    if name == "dpo" and loss in ("orpo", "simpo"):
        name, loss = loss, None
    if name == "ipo":
        name, loss = "dpo", "ipo"
    if name is None and loss in _DPO_LOSSES:
        name = "dpo"
    if name is None and not _REWARDED.isdisjoint(draft.settings):
        name = "grpo"
    name = {"rm": "reward", "pt": "sft"}.get(str(name), name)
    if name is None or name == "sft":
        draft.leave("loss_type", None if loss == "nll" else loss, "sft's loss is the cross-entropy")
        for key in _OF_OTHER_OBJECTIVES:
            draft.leave(key, draft.take(key), "the objective is sft; say another: objective: dpo")
        return
    if not isinstance(name, str) or name not in _OBJECTIVES:
        raise RecipeError(
            f"{name} can't be converted: objectives are sft, {', '.join(_OBJECTIVES)}",
            hint="Its rewards are functions of a program. Here they are metrics: objective: {use: grpo, rewards: ...}."
            if name == "grpo"
            else "",
        )
    said: dict[str, Any] = {"use": name}
    if name == "dpo" and loss in _DPO_LOSSES:
        said["loss"] = loss
    else:
        draft.leave("loss_type", loss, f"{name} has no such loss")
    for key, names in _OBJECTIVES[name].items():
        value = draft.take(*names)
        if value is not None:
            said[key] = value
    draft.put("objective", said if len(said) > 1 else name)


_DPO_LOSSES = ("sigmoid", "ipo", "hinge", "robust")
_OBJECTIVES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "dpo": {
        "beta": ("rl_beta", "dpo_beta", "pref_beta", "beta"),
        "label_smoothing": ("dpo_label_smoothing", "label_smoothing"),
        "nll_weight": ("pref_ftx", "rpo_alpha"),
    },
    "orpo": {"beta": ("orpo_alpha", "rl_beta", "pref_beta", "beta")},
    "simpo": {"beta": ("rl_beta", "pref_beta", "beta"), "gamma": ("simpo_gamma",)},
    "kto": {
        "beta": ("rl_beta", "pref_beta", "beta"),
        "wanted_weight": ("kto_desirable_weight", "kto_chosen_weight", "desirable_weight"),
        "unwanted_weight": ("kto_undesirable_weight", "kto_rejected_weight", "undesirable_weight"),
    },
    "reward": {},
}
