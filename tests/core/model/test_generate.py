"""Generation with a cache, side by side, against the whole sequence computed again for each token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from decoding_shapes import SHAPES, SMALL
from graftkit.model.continuation import Continuation
from graftkit.model.decoding import Decoding
from graftkit.model.decoding_trial import _of_configuration, choose_decoding
from graftkit.model.generate import generate_greedily
from graftkit.model.rope_lengths import forget_longest
from graftkit.model.twin import build_twin


@torch.no_grad()
def recomputed(network: Any, prompt: list[int], count: int) -> list[int]:
    forget_longest(network)
    ids = list(prompt)
    for _ in range(count):
        ids.append(network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", SHAPES)
def test_answers_are_those_of_the_whole_sequence_computed_again(name: str) -> None:
    network, random = build_twin(SHAPES[name]), torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, 90, (length,), generator=random).tolist() for length in (30, 11)]
    expected = [recomputed(network, prompt, 8) for prompt in prompts]
    assert generate_greedily(network, prompts, max_new_tokens=8, stop=[]) == expected
    assert (
        list(Continuation(network, choose_decoding(network)).stream(prompts[0], max_new_tokens=8, stop=[]))
        == expected[0]
    )


LATENT = {"q_lora_rank": 24, "head_dim": 32, "qk_rope_head_dim": 8, "o_groups": 2, "o_lora_rank": 16}
LONG: dict[str, dict[str, Any]] = {
    "tokens kept by their values": {**SMALL, "model_type": "doge", "num_key_value_heads": 2, "keep_window_size": 48},
    "tokens put together": {
        **{**SMALL, **LATENT, "model_type": "deepseek_v4", "num_key_value_heads": 1, "moe_intermediate_size": 32},
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 48},
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 48},
    },
}


@pytest.mark.parametrize("name", LONG)
def test_what_begins_beyond_the_length_that_is_tried_is_tried_shortened(name: str) -> None:
    network, random = build_twin(LONG[name], short_windows=False), torch.Generator().manual_seed(9)
    prompts = [torch.randint(3, 90, (length,), generator=random).tolist() for length in (110, 61)]
    expected = [recomputed(network, prompt, 4) for prompt in prompts]
    assert generate_greedily(network, prompts, max_new_tokens=4, stop=[]) == expected


@pytest.mark.parametrize("name", SHAPES)
def test_what_goes_on_with_a_prompt_already_computed_is_as_if_computed_anew(name: str) -> None:
    network, random = build_twin(SHAPES[name]), torch.Generator().manual_seed(5)
    first, added, other = (torch.randint(3, 90, (length,), generator=random).tolist() for length in (30, 7, 9))
    going_on = Continuation(network, choose_decoding(network))
    answer = list(going_on.stream(first, max_new_tokens=4, stop=[]))
    for prompt in ([*first, *answer, *added], [*first, *other], first, other, [*other, *added], other[:6], first[:14]):
        assert list(going_on.stream(prompt, max_new_tokens=6, stop=[])) == recomputed(network, prompt, 6)


@pytest.mark.parametrize("name", ["grouped heads", *SHAPES])
def test_answers_that_end_at_different_places_after_prompts_that_begin_alike(name: str) -> None:
    """What they share is computed once, and who has ended is left out, where the architecture allows that."""
    config = SHAPES.get(name, {**SMALL, "model_type": "llama", "num_key_value_heads": 2})
    network, random = build_twin(config), torch.Generator().manual_seed(7)
    start = torch.randint(3, 90, (9,), generator=random).tolist()
    ends = [torch.randint(3, 90, (length,), generator=random).tolist() for length in (1, 14, 14, 3, 12, 2)]
    prompts = [*([*start, *end] for end in ends), start]
    whole = [recomputed(network, prompt, 10) for prompt in prompts]
    stop = [token for token in (whole[0][1], whole[1][4], whole[2][2]) if token not in {answer[0] for answer in whole}]
    expected = [answer[: next((n for n, token in enumerate(answer) if token in stop), 10)] for answer in whole]
    assert name != "grouped heads" or len({*map(len, expected)}) > 1
    assert generate_greedily(network, prompts, max_new_tokens=10, stop=stop) == expected


def test_what_all_prompts_begin_with_is_computed_once_and_who_has_ended_not_at_all() -> None:
    network = build_twin({**SMALL, "model_type": "llama", "num_key_value_heads": 2})
    shapes: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    prompts = [[*range(3, 33), *range(40 + row, 44 + row)] for row in range(8)]
    whole = generate_greedily(network, prompts, max_new_tokens=6, stop=[])
    assert shapes == [(1, 30), (8, 4), *[(8, 1)] * 5]
    shapes.clear()
    stop = [answer[made] for made, answer in enumerate(whole[:5], 1)]
    generate_greedily(network, prompts, max_new_tokens=6, stop=stop)
    rows, expected = 8, [(1, 30), (8, 4)]
    for made in range(1, 6):
        left = sum(not {*answer[:made]} & {*stop} for answer in whole)
        rows = left if left <= 0.75 * rows else rows
        expected += [(rows, 1)] if left else []
    assert shapes == expected and rows < 8


def test_a_turn_that_follows_computes_its_own_tokens_alone() -> None:
    network = build_twin({**SMALL, "model_type": "llama", "num_key_value_heads": 2})
    lengths: list[int] = []
    network.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    going_on, prompt = Continuation(network, choose_decoding(network)), list(range(3, 40))
    answer = list(going_on.stream(prompt, max_new_tokens=5, stop=[]))
    assert lengths == [37, 1, 1, 1, 1], "a token costs a token a step"
    lengths.clear()
    list(going_on.stream([*prompt, *answer, 7, 8], max_new_tokens=2, stop=[]))
    assert lengths == [3, 1], "the last token of the answer was not computed, the two are new"


def test_a_prompt_that_nobody_wants_any_more_ends_before_the_next_block() -> None:
    network = build_twin({**SMALL, "model_type": "llama", "num_key_value_heads": 2})
    going_on, prompt, asked = Continuation(network, choose_decoding(network)), list(range(3, 40)), list[int]()
    computed: list[int] = []
    for number, block in enumerate(network.model.layers):
        block.register_forward_hook(lambda *_, number=number: computed.append(number))
    assert not list(
        going_on.stream(prompt, max_new_tokens=3, stop=[], unwanted=lambda: len(asked) == 1 or asked.append(1))
    )
    assert computed == [0] and going_on.held == 0 and len(network.model.layers) > 1
    fresh = list(Continuation(network, choose_decoding(network)).stream(prompt, max_new_tokens=3, stop=[]))
    assert list(going_on.stream(prompt, max_new_tokens=3, stop=[])) == fresh


def test_a_pass_that_is_stopped_leaves_nothing_half_computed() -> None:
    network = build_twin({**SMALL, "model_type": "llama", "num_key_value_heads": 2})
    going_on, prompt = Continuation(network, choose_decoding(network)), list(range(3, 40))
    list(going_on.stream(prompt, max_new_tokens=3, stop=[]))

    def stop(*anything: Any) -> None:
        raise KeyboardInterrupt

    hook = network.model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        list(going_on.stream([*prompt, 50, 51], max_new_tokens=3, stop=[]))
    hook.remove()
    found = list(going_on.stream([*prompt, 50, 51], max_new_tokens=6, stop=[]))
    assert found == recomputed(network, [*prompt, 50, 51], 6)


def test_what_a_model_gives_is_found_out_before_it_is_used() -> None:
    """And no more than that is allowed: each of these answers as it would alone, if more slowly."""
    found = {name: choose_decoding(build_twin(shape)) for name, shape in SHAPES.items()}
    nothing = Decoding()
    assert found["no cache"] == found["states in its layers"] == nothing
    assert found["distances counted over padding"] == Decoding(True, True, True, True, shared=False)
    assert not found["state space"].padded and found["state space"].batched
    everything = Decoding(True, True, True, True, True)
    assert all(found[name] == everything for name in ("window", "learned positions", "frequencies of long sequences"))


@pytest.mark.parametrize("instead", [{"build_twin": lambda *_, **__: 1 / 0}, {"relative_difference": lambda *_: 1.0}])
def test_a_model_that_can_not_be_tried_is_continued_alone_with_its_cache(
    monkeypatch: pytest.MonkeyPatch, instead: dict[str, Any]
) -> None:
    """No small one can be made of it, or rounding alone changes what that computes."""
    network = build_twin({**SMALL, "model_type": "llama", "num_key_value_heads": 2})
    for name, function in {"_of_configuration": _of_configuration.__wrapped__, **instead}.items():
        monkeypatch.setattr(f"graftkit.model.decoding_trial.{name}", function)
    assert choose_decoding(network) == Decoding(cached=True)
    prompts = [[*range(3, 40)], [*range(4, 12)]]
    expected = [recomputed(network, prompt, 4) for prompt in prompts]
    assert generate_greedily(network, prompts, max_new_tokens=4, stop=[]) == expected


def test_a_configuration_is_tried_once_whatever_its_model_weighs(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build = lambda *given, **named: built.append(given) or build_twin(*given, **named)  # noqa: E731
    monkeypatch.setattr("graftkit.model.decoding_trial.build_twin", build)
    networks = [build_twin({**SMALL, "model_type": "llama", "num_key_value_heads": 2, "own": 1}) for _ in range(2)]
    networks[1].further = torch.nn.Parameter(torch.zeros(7))
    assert len({id(choose_decoding(network)) for network in networks}) == len(built) == 1
