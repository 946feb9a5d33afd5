"""What routers choose is seen in any mixture, and made otherwise where it is nearly even."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graftkit.errors import ExportError
from graftkit.flow.exports.expert_choices import Choice, choosing, made_otherwise, nearly_even, same_choices, watched
from graftkit.flow.exports.probes import Probes
from graftkit.flow.exports.rounding import ReadLogits
from graftkit.flow.exports.same_experts import choices_by_sequence, same_experts
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from transformers import AutoModelForCausalLM

MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "granitemoe", "olmoe", "gpt_oss", "deepseek_v3")


@pytest.mark.parametrize("name", [name for name in MIXTURES if name in ARCHITECTURES])
def test_every_router_is_seen_and_can_be_made_to_choose_otherwise(name: str, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path / "m", **ARCHITECTURES[name]))
    ids = torch.arange(40, 60)[None]

    def compute() -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits[0]

    logits, made = watched(compute)
    routers = sum(type(module).__name__.endswith(("Router", "Gate", "GateModule")) for module in model.modules())
    assert len(made) >= max(1, routers), f"{len(made)} choices of {routers} routers"
    forced, again = choosing(made, compute)
    assert torch.equal(forced, logits) and same_choices(made, again)
    nowhere = [torch.zeros_like(choice.margin, dtype=torch.bool) for choice in made]
    assert all(torch.equal(logits, other) for other in made_otherwise(nowhere, compute))
    last = [*nowhere[:-1], nowhere[-1].clone()]
    last[-1][..., 7] = True
    moved = (made_otherwise(last, compute)[0] - logits).abs().amax(1)
    assert moved[7] > 0 and not moved[:7].any(), "a choice of the seventh token moves no other in the last layer"


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3"])
def test_a_rounded_mixture_is_compared_with_the_same_experts(name: str, tmp_path: Path) -> None:
    """bfloat16 turns choices that are nearly even, and the experts that are taken then compute something else."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path / "m", **ARCHITECTURES[name]))
    routers = [parameter for path, parameter in model.named_parameters() if path.endswith("gate.weight")]
    for router in routers:
        router.data = router.data[:1] + 0.05 * router.data
    for path, parameter in model.named_parameters():
        if "experts.down_proj" in path:
            parameter.data *= 30
    sequences = [torch.arange(40, 60)[None], torch.arange(70, 170)[None]]

    def compute() -> list[torch.Tensor]:
        with torch.no_grad():
            return [model(input_ids=ids, use_cache=False).logits[0] for ids in sequences]

    def off(found: list[torch.Tensor]) -> float:
        return max((one - other).abs().max().item() for one, other in zip(trained, found, strict=True))

    trained, chosen = watched(compute)
    at = [[3, 8, 19], [20, 40, 60, 80, 99]]
    experts = choices_by_sequence(chosen, [20, 100], at, packed=False)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    rounded, made = watched(compute)
    allowed = 5e-2 * max(logits.abs().max().item() for logits in trained)
    found = same_experts(experts, at, made, compute)
    assert off(rounded) > allowed and found is not None and off(found.logits) < allowed
    assert 0 < found.turned < found.choices / 2
    assert same_experts([*experts, *experts], [*at, *at], made, compute) is None
    for router in routers:
        router.data = router.data.flip(0)
    assert same_experts(experts, at, watched(compute)[1], compute) is None, "another router"


def test_choices_of_sequences_that_share_a_pass_are_those_of_each_alone() -> None:
    chosen, scores = torch.arange(2 * 7 * 2).view(2, 7, 2), torch.rand(2, 7, 30)
    made = [Choice(scores[0], chosen[0]), Choice(scores[1][None], chosen[1][None])]
    alone = [
        Choice(scores[call, start:end], chosen[call, start:end]) for start, end in ((0, 3), (3, 7)) for call in (0, 1)
    ]
    at = [[0, 2], [1]]
    together = choices_by_sequence(made, [3, 4], at, packed=True)
    apart = choices_by_sequence(alone, [3, 4], at, packed=False)
    for ours, theirs in zip(chain(*together), chain(*apart), strict=True):
        assert torch.equal(ours.taken, theirs.taken) and torch.equal(ours.scores, theirs.scores)
    assert torch.equal(together[1][1].scores, scores[1, 4].view(1, 1, 30))
    assert choices_by_sequence([], [3, 4], at, packed=True) == choices_by_sequence(made, [3, 5], at, packed=True) == []


def test_a_choice_is_nearly_even_where_its_margin_is_within_rounding() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.29, 0.0], [0.5, 0.4, 0.1, 0.0], [0.5, 0.3, 0.299999, 0.0]])
    choice = Choice(scores, scores.topk(2, -1).indices)
    moved = Choice(scores + torch.tensor([[0.0, 0.001, -0.003, 0.0], [0, 0, 0.002, 0], [0, 0, 0, 0]]), choice.chosen)
    assert torch.allclose(choice.margin, torch.tensor([0.01, 0.3, 0.000001]), atol=1e-6)
    assert nearly_even([choice], [(choice, moved)], 3)[0].tolist() == [True, False, True]
    assert nearly_even([choice], [(choice, moved)], 1)[0].tolist() == [False, False, True]


def read(turned: list[float]) -> tuple[ReadLogits, Probes]:
    logits = torch.linspace(-1, 1, 4 * 6).view(4, 6)
    probes = Probes([[0, 1, 2, 3]], [logits])
    return ReadLogits([logits], [logits + 1e-3], [logits + 1e-3], [torch.tensor(turned)]), probes


def test_positions_that_choices_move_are_set_aside_and_all_others_compared_closely() -> None:
    made, probes = read([0.0, 0.0, 3.0, 0.004])
    compared = made.comparison(probes, 0.01)
    assert compared.set_aside == 1 and compared.probes.positions == [[0, 1, 3]]
    assert compared.tolerance == pytest.approx(0.01 + 0.004, abs=1e-4)
    assert torch.equal(compared.probes.logits[0], made.rounded[0][[0, 1, 3]])


def test_half_of_the_positions_are_compared_at_least_or_the_proof_is_refused() -> None:
    made, probes = read([0.02, 0.03, 0.1, 0.15])
    compared = made.comparison(probes, 0.01)
    assert compared.set_aside == 2 and compared.tolerance == pytest.approx(0.01 + 0.03, abs=1e-4)
    with pytest.raises(ExportError, match="more than half of the positions"):
        read([0.0, 0.3, 0.3, 0.3])[0].comparison(probes, 0.01)


def test_logits_that_are_all_zero_are_no_fault_of_choices() -> None:
    """What is wrong with such an export is told by the comparison with what was trained."""
    logits = [torch.zeros(4, 6)]
    compared = ReadLogits(logits, logits, logits, [torch.zeros(4)]).comparison(Probes([[0, 1, 2, 3]], logits), 0.01)
    assert not compared.tolerance and not compared.set_aside


def test_a_probe_of_which_no_position_is_compared_is_not_asked_for() -> None:
    logits = [torch.ones(1, 5).cumsum(1), torch.ones(3, 5).cumsum(1)]
    made = ReadLogits(logits, logits, logits, [torch.tensor([1.0]), torch.zeros(3)])
    compared = made.comparison(Probes([[3], [0, 1, 2]], logits), 0.01)
    assert compared.probes.ids == [[0, 1, 2]] and compared.set_aside == 1


def test_what_a_position_chose_is_set_aside_with_it() -> None:
    """Else an export of a mixture is compared with the experts that the trained model took in another sequence."""
    logits = [torch.ones(1, 5).cumsum(1), torch.ones(3, 5).cumsum(1), torch.ones(2, 5).cumsum(1)]
    made = ReadLogits(logits, logits, logits, [torch.tensor([1.0]), torch.zeros(3), torch.tensor([0.0, 1.0])])
    ids, positions = [[3], [0, 1, 2, 3], [2, 1]], [[0], [0, 2, 3], [0, 1]]
    choices = [Choice(torch.rand(len(of), 4), torch.rand(len(of), 4).topk(2, -1).indices) for of in ids]
    trained = choices_by_sequence(choices, [1, 4, 2], positions, packed=False)
    probes = Probes(ids, logits, positions, token_type_ids=[[0], [0, 0, 1, 1], [1, 1]], experts=trained)
    compared = made.comparison(probes, 0.01).probes
    assert compared.ids == ids[1:] and compared.positions == [[0, 2, 3], [0]]
    assert compared.token_type_ids == [[0, 0, 1, 1], [1, 1]]
    scores = [router.scores[:, 0] for [router] in compared.experts]
    for found, choice, at in zip(scores, choices[1:], compared.positions, strict=True):
        assert torch.equal(found, choice.scores[at])
    whole = [router.taken[:, 0] for [router] in compared.experts]
    assert [taken.tolist() for taken in whole] == [choice.chosen.tolist() for choice in choices[1:]]


def test_what_is_no_choice_is_left_alone() -> None:
    values = torch.tensor([[1.0, 3.0, 2.0]])
    cases = SimpleNamespace(all=lambda: values.topk(3), least=lambda: values.topk(1, largest=False))
    assert watched(cases.all)[1] == watched(cases.least)[1] == []
    assert len(watched(lambda: torch.topk(input=values, k=1))[1]) == 1
