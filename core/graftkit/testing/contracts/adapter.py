"""What every adapter promises, on whatever a frozen weight is stored in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graftkit.errors import TrainingError
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.frozen_weight import EmbeddingWeight, FrozenWeight
from graftkit.interfaces.layer import Layer, LayerInfo, OriginalWeights
from graftkit.interfaces.quantizer import Quantizer
from graftkit.recipe.bind import Choice
from graftkit.testing.contracts.base import choose, refusal
from graftkit.testing.contracts.observed_start import ObservedStartContract
from graftkit.testing.contracts.samples import SMALL_SHAPES, distance, layer_of, normal

__all__ = ["AdapterContract"]

State = Mapping[str, torch.Tensor]

CASES = [(shape, biased) for shape in SMALL_SHAPES for biased in (False, True)]
"""Layers: their shape, and whether they have a bias."""


class AdapterContract(ObservedStartContract):
    """Runs every promise on every quantizer that is installed, third parties' included.

    Example:
        >>> class TestIa3(AdapterContract):
        ...     provider = "ia3"
    """

    kind = "adapter"

    def quantizers(self) -> dict[str, Choice]:
        """Returns what frozen weights are stored in, by a label: every quantizer, and the one of the preset."""
        host = self.host()
        names = [
            registered.qualified_name
            for registered in host.registry.providers("quantizer")
            if _works_as_it_is(host, registered)
        ]
        found = {name: choose(host, "quantizer", name, {}) for name in names}
        preset = dict(self.choice.config.preset.get("quantizer", {}))
        if preset:
            found["preset"] = choose(host, "quantizer", preset.pop("use"), preset)
        return found

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs each test that takes a quantizer once for each there is."""
        if "quantizer" in metafunc.fixturenames:
            found = self.quantizers()
            metafunc.parametrize("quantizer", list(found.values()), ids=list(found))

    def frozen(self, quantizer: Choice, rows: int = 12, columns: int = 70) -> FrozenWeight:
        """Stores a weight, always the same one of this shape.

        Args:
            quantizer: What stores it.
            rows: The layer's outputs.
            columns: Its inputs.
        """
        self._quantizer: Quantizer = self.create(quantizer)
        weight = original_of(rows, columns)
        stored: FrozenWeight = self._quantizer.quantize(weight, layer_of(weight))
        return stored

    def refused(self, shape: tuple[int, int], *, biased: bool) -> str | None:
        """Returns why the config model refuses a layer, or None."""
        return self.choice.config.refusal(LayerInfo("layer", "linear", *shape, biased))

    def cases(self) -> list[tuple[tuple[int, int], bool]]:
        """Returns those of `CASES` that the adapter can go on."""
        return [(shape, biased) for shape, biased in CASES if not self.refused(shape, biased=biased)]

    def layer(
        self,
        weight: FrozenWeight,
        generator: torch.Generator,
        *,
        biased: bool | None = None,
        originals: OriginalWeights | None = None,
    ) -> Layer:
        """Returns a layer with a weight that `frozen` gave.

        Args:
            weight: The frozen weight.
            generator: The source of random numbers.
            biased: Whether it has a bias; when left out, only where the adapter takes no layer without one.
            originals: What `Layer.original` asks.
        """
        if biased is None:
            biased = self.refused((weight.out_features, weight.in_features), biased=False) is not None
        return layer_with(weight, generator, biased=biased, originals=originals or SampleOriginals(self._quantizer))

    def attach(
        self,
        weight: FrozenWeight,
        seed: int = 2,
        *,
        biased: bool | None = None,
        originals: OriginalWeights | None = None,
    ) -> AdaptedWeight:
        """Adapts a weight with the provider; what it returns is in evaluation mode.

        Args:
            weight: The frozen weight, `[out, in]`.
            seed: What the adapter's start is drawn from.
            biased: Whether the layer has a bias; as the adapter takes it when left out.
            originals: What gives the weight before it was quantized, where the adapter asks for that.
        """
        layer = self.layer(weight, torch.Generator().manual_seed(seed), biased=biased, originals=originals)
        adapted = self.make().attach(layer)
        assert isinstance(adapted, AdaptedWeight), (
            f"attach returned {type(adapted).__name__}, which is no AdaptedWeight"
        )
        return adapted.eval()

    def trained(self, weight: FrozenWeight, *, biased: bool | None = None) -> AdaptedWeight:
        """Adapts a weight and moves every trainable parameter off its start."""
        return moved(self.attach(weight, biased=biased))

    def test_it_starts_as_the_frozen_weight_alone(self, quantizer: Choice) -> None:
        """Training starts from the model as it was.

        One that replaces the frozen weight is compared with the weight before it was quantized: it must be as near as
        the quantized one.
        """
        for shape, biased in self.cases():
            weight = self.frozen(quantizer, *shape)
            adapted = self.attach(weight, biased=biased)
            x = normal(5, shape[1], seed=3)
            if adapted.replaced:
                expected = x @ original_of(*shape).T
                off, allowed = distance(adapted(x), expected), 2 * distance(weight(x), expected) + 1e-5
                assert off <= allowed, (
                    f"right after attach, {list(shape)} is off by {off:.1e} from the weight before it was quantized"
                )
                continue
            off = distance(adapted(x), adapted.frozen(x))
            assert off <= 1e-6, f"right after attach, {list(shape)} computes something else than W alone ({off:.1e})"
            largest = adapted.delta().abs().max().item()
            assert largest <= 1e-6, f"right after attach, delta() is not zero but up to {largest:.1e}"
            largest = bias_delta(adapted).abs().max().item()
            assert largest <= 1e-6, f"right after attach, bias_delta() is not zero but up to {largest:.1e}"

    def test_merging_computes_what_forward_computes(self, quantizer: Choice) -> None:
        """`W + delta()` and `b + bias_delta()` are the whole truth: exports are made of them."""
        for shape, biased in self.cases():
            adapted = self.trained(self.frozen(quantizer, *shape), biased=biased)
            delta = adapted.delta()
            assert delta.dtype == torch.float32, f"delta() is {delta.dtype}, not float32"
            assert tuple(delta.shape) == shape, f"delta() has the shape {list(delta.shape)}, not {list(shape)}"
            assert not delta.requires_grad, "delta() must be detached"
            changed = bool(delta.any() or bias_delta(adapted).any())
            assert changed, "delta() and bias_delta() are zero after every parameter was changed"
            x = normal(5, shape[1], seed=3)
            merged = x @ (adapted.frozen.dequantize() + delta).T + bias_delta(adapted)
            off = distance(adapted(x), merged)
            assert off <= 1e-5, (
                f"x (W + delta)^T + bias_delta differs from forward(x) by {off:.1e} at {list(shape)}, "
                f"{'with' if biased else 'without'} a bias, which the layer itself adds"
            )

    def test_a_layer_that_its_fields_refuse_is_not_adapted(self, quantizer: Choice) -> None:
        """`refusal` of the config model is the truth: `attach` raises ValueError for just these layers."""
        for shape, biased in CASES:
            if not self.refused(shape, biased=biased):
                continue
            weight = self.frozen(quantizer, *shape)
            did = refusal(lambda weight=weight, biased=biased: self.attach(weight, biased=biased))  # type: ignore[misc]
            assert not did, f"refusal() refuses {list(shape)}, for which attach must raise ValueError; it {did}"

    def test_as_many_parameters_are_trained_as_the_forecast_says(self, quantizer: Choice) -> None:
        """`trainable_parameters` of the config model is exact, or None."""
        for shape, biased in self.cases():
            adapted = self.attach(self.frozen(quantizer, *shape), biased=biased)
            said = self.choice.config.trainable_parameters(adapted.info)
            found = sum(parameter.numel() for parameter in adapted.trainable_parameters().values())
            assert said in (None, found), f"trainable_parameters() says {said} for {list(shape)}; {found} are trained"

    def test_disabled_it_computes_what_the_frozen_weight_computes(self, quantizer: Choice) -> None:
        """Bit for bit, in training too: it is the reference model of a preference objective."""
        adapted, x = self.trained(self.frozen(quantizer), biased=True).train(), normal(5, 70, seed=3)
        adapted.enabled = False
        if adapted.replaced:
            did = refusal(lambda: adapted(x), TrainingError)
            assert not did, f"with enabled = False and its frozen weight replaced it must raise TrainingError; it {did}"
            return
        assert torch.equal(adapted(x), adapted.frozen(x)), (
            "with enabled = False it computes something else than W alone"
        )
        adapted.enabled = True
        assert not torch.equal(adapted.eval()(x), adapted.frozen(x)), "enabled again, it computes W alone"

    def test_inputs_of_any_rank_and_type_are_taken(self, quantizer: Choice) -> None:
        """Models compute in 16 bits, and with a batch dimension or without."""
        adapted = self.trained(self.frozen(quantizer))
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for shape in ((70,), (4, 70), (2, 3, 70)):
                x = normal(*shape, seed=3, dtype=dtype)
                y = adapted(x)
                assert y.dtype == dtype, f"an input in {dtype} gives a result in {y.dtype}"
                off = distance(y, adapted(x.float()))
                assert off <= 8 * torch.finfo(dtype).eps, f"in {dtype} the result for {list(shape)} is off by {off:.1e}"

    def test_gradients_reach_the_adapters_parameters_and_the_input_alone(self, quantizer: Choice) -> None:
        """Every trainable parameter is the adapter's own, and learns."""
        adapted = self.trained(self.frozen(quantizer)).train()
        x = normal(5, 70, seed=3).requires_grad_()
        adapted(x).square().sum().backward()
        own = adapted.trainable_parameters()
        assert own, "trainable_parameters() is empty: nothing would be trained"
        without = [name for name, parameter in own.items() if parameter.grad is None or not parameter.grad.any()]
        assert not without, f"no gradient reaches {', '.join(without)}"
        assert x.grad is not None and bool(x.grad.any()), "no gradient reaches the input: layers below would not learn"
        touched = [name for name, p in adapted.frozen.named_parameters() if p.requires_grad or p.grad is not None]
        assert not touched, f"the frozen weight's {', '.join(touched)} would be trained"

    def test_gradients_are_those_of_finite_differences(self, quantizer: Choice) -> None:
        """Of the parameters and of the input, in double precision."""
        adapted = doubled(self.trained(self.frozen(quantizer, 4, 6)))
        names, parameters = zip(*adapted.trainable_parameters().items(), strict=True)

        def forward(x: torch.Tensor, *values: torch.Tensor) -> Any:
            return torch.func.functional_call(adapted, dict(zip(names, values, strict=True)), (x,))

        inputs = (normal(2, 6, seed=3, dtype=torch.float64).requires_grad_(), *parameters)
        assert torch.autograd.gradcheck(forward, inputs, atol=1e-5, rtol=1e-3, raise_exception=False), (
            f"the gradients of {', '.join(names)} or of the input are not those of finite differences"
        )

    def test_learning_rates_are_scaled_of_what_is_trained_alone(self, quantizer: Choice) -> None:
        """`rate_scales` gives positive, finite factors for parameters that there are."""
        adapted = self.attach(self.frozen(quantizer))
        scales, own = adapted.rate_scales(), adapted.trainable_parameters()
        unknown = sorted(scales.keys() - own.keys())
        assert not unknown, f"rate_scales() names {', '.join(unknown)}, but {', '.join(own)} are trained"
        wrong = [f"{name}: {scale}" for name, scale in scales.items() if not 0 < scale < float("inf")]
        assert not wrong, f"rate_scales() must give positive, finite numbers, not {', '.join(wrong)}"

    def test_its_state_makes_another_start_compute_the_same(self, quantizer: Choice) -> None:
        """Bit for bit, through a safetensors file."""
        from safetensors.torch import load, save

        weight = self.frozen(quantizer)
        first, other = self.trained(weight), self.attach(weight, seed=9)
        other.load_adapter_state(load(save(copied(first.adapter_state()))))
        x = normal(5, 70, seed=3)
        assert torch.equal(first(x), other(x)), "adapter_state() does not hold all that forward needs"
        assert torch.equal(first.delta(), other.delta()), "adapter_state() does not hold all that delta() needs"

    def test_its_state_does_without_the_original_weight(self, quantizer: Choice) -> None:
        """An export may be loaded on a base whose files hold the weights as they were quantized.

        What a start took from `Layer.original` belongs into `adapter_state`, unless it became the frozen weight.
        """
        weight = self.frozen(quantizer)
        first = self.trained(weight)
        if first.replaced:
            return
        other = self.attach(weight, originals=SampleOriginals(self._quantizer, seed=8))
        other.load_adapter_state(copied(first.adapter_state()))
        x = normal(5, 70, seed=3)
        assert torch.equal(first(x), other(x)), "adapter_state() does not hold what the start took from original()"

    def test_another_frozen_weight_is_made_of_layer_and_seed_alone(self, quantizer: Choice) -> None:
        """A run that goes on and a model that is loaded again attach anew; exports are told by the adapter's form."""
        weight = self.frozen(quantizer)
        adapted = self.attach(weight)
        if not adapted.replaced:
            assert adapted.frozen is weight, "it has another frozen weight: it must say so with replace_frozen()"
            return
        again = self.attach(weight)
        assert same(adapted.frozen.state(), again.frozen.state()), "attached twice, it makes two frozen weights"
        assert self.make().peft_config() is None, (
            "peft_config() must be None: PEFT would put the adapter on the base model's own weight"
        )

    def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(self, quantizer: Choice) -> None:
        """A tensor missing, one left over, one of another shape."""
        adapted = self.trained(self.frozen(quantizer))
        before = copied(adapted.adapter_state())
        wrong: dict[str, State] = {"a tensor more": {**before, "left_over": torch.zeros(1)}}
        for name, tensor in before.items():
            wrong[f"no '{name}'"] = {k: v + 1 for k, v in before.items() if k != name}
            wrong[f"another shape of '{name}'"] = {**{k: v + 1 for k, v in before.items()}, name: tensor.unsqueeze(0)}
        for what, state in wrong.items():
            did = refusal(lambda state=state: adapted.load_adapter_state(state))  # type: ignore[misc]
            assert not did, f"load_adapter_state must raise ValueError for a state with {what}; it {did}"
            assert same(before, adapted.adapter_state()), f"load_adapter_state refused {what}, but took over the rest"

    def test_one_seed_gives_one_start_and_another_seed_another(self, quantizer: Choice) -> None:
        """Random numbers come from the generator alone; an adapter that draws none always starts alike."""
        weight = self.frozen(quantizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            state = torch.get_rng_state()
            first = self.attach(weight, 5).adapter_state()
            assert torch.equal(state, torch.get_rng_state()), "attach draws from torch's global random state"
            torch.manual_seed(2)
            assert same(first, self.attach(weight, 5).adapter_state()), "one seed gives two different starts"
        drawing = torch.Generator().manual_seed(5)
        self.make().attach(self.layer(weight, drawing))
        draws = not torch.equal(drawing.get_state(), torch.Generator().manual_seed(5).get_state())
        alike = same(first, self.attach(weight, 6).adapter_state())
        assert not (draws and alike), "another seed gives the same start, though random numbers are drawn"
        assert draws or alike, "the start varies with a seed that is never drawn from"

    def test_training_lowers_the_loss_and_leaves_the_frozen_weight_alone(self, quantizer: Choice) -> None:
        """A few steps of AdamW on a toy regression."""
        adapted = self.attach(self.frozen(quantizer)).train()
        before = copied(adapted.frozen.state())
        x = normal(64, 70, seed=3)
        target = x @ (1.5 * adapted.frozen.dequantize()).T
        losses = train(adapted, x, target)
        assert losses[-1] < losses[0], f"20 steps of AdamW took the loss from {losses[0]:.4g} to {losses[-1]:.4g}"
        assert same(before, adapted.frozen.state()), "training changed the frozen weight"

    def test_evaluation_gives_one_result_and_training_is_seeded(self, quantizer: Choice) -> None:
        """Dropout acts in training only, and draws from torch's random state, which a run seeds at every step."""
        adapted, x = self.trained(self.frozen(quantizer)), normal(5, 70, seed=3)
        expected = adapted(x)
        with torch.random.fork_rng(devices=[]):
            results = [seeded(adapted.train(), x) for _ in range(2)]
        assert torch.equal(*results), "in training, one seed gives two results: draw dropout from torch's random state"
        for _ in range(2):
            assert torch.equal(adapted.eval()(x), expected), "in evaluation the result is not always the same"

    def test_peft_computes_the_same(self, quantizer: Choice, tmp_path: Path) -> None:
        """Where `peft_config` gives a form, the real peft loads it; where it gives None there is none."""
        config = self.make().peft_config()
        if config is None:
            return
        for biased in (False, True):
            if self.refused((12, 70), biased=biased):
                continue
            adapted = self.trained(self.frozen(quantizer), biased=biased)
            wrapped = load_with_peft(tmp_path, config, self.make().peft_tensors(adapted), OneLayer(adapted))
            x = normal(5, 70, seed=3)
            off = distance(wrapped(x), adapted(x) + (0 if adapted.bias is None else adapted.bias))
            assert off <= 1e-5, (
                f"peft computes something else from peft_config and peft_tensors: off by {off:.1e} "
                f"{'with' if biased else 'without'} a bias"
            )

    def test_from_peft_is_the_way_back_from_peft_tensors(self, quantizer: Choice) -> None:
        """An adapter that peft made can be continued here."""
        if self.make().peft_config() is None:
            return
        adapted = self.trained(self.frozen(quantizer))
        again = self.make().from_peft(self.make().peft_tensors(adapted))
        assert same(adapted.adapter_state(), again), "from_peft(peft_tensors(adapted)) is not adapter_state()"

    def embedding(self, seed: int = 2) -> AdaptedWeight | None:
        """Adapts an embedding of 70 ids, always the same one; None where the adapter goes on none.

        One that names the kind in `layer_kinds`, and whose `refusal` refuses it as its fields are, must raise.
        """
        config, info = self.choice.config, LayerInfo("layer", "embedding", 12, 70)
        if "embedding" not in config.layer_kinds:
            return None
        weight = EmbeddingWeight(original_of(12, 70).T.contiguous(), padding_idx=5)
        layer = Layer(info, weight, None, torch.Generator().manual_seed(seed))
        if config.refusal(info):
            did = refusal(lambda: self.make().attach(layer))
            assert not did, f"refusal() refuses an embedding, for which attach must raise ValueError; it {did}"
            return None
        adapted: AdaptedWeight = self.make().attach(layer).eval()
        return adapted

    def test_on_an_embedding_it_maps_ids_to_merged_rows(self) -> None:
        """What it puts on one is called with ids; `delta()` is `[out, in]` as of any layer."""
        adapted = self.embedding()
        if adapted is None:
            return
        ids = torch.tensor([[3, 69, 3], [0, 5, 11]])
        assert torch.equal(adapted(ids), adapted.frozen(ids)), (
            "right after attach, an embedding computes something else"
        )
        moved(adapted)
        rows = (adapted.frozen.dequantize() + adapted.delta()).T[ids]
        off = distance(adapted(ids), rows)
        assert off <= 1e-5, f"an id's row of (W + delta)^T differs from forward(ids) by {off:.1e}"
        adapted.enabled = False
        assert torch.equal(adapted(ids), adapted.frozen(ids)), "with enabled = False an embedding computes another row"
        said = self.choice.config.trainable_parameters(adapted.info)
        found = sum(parameter.numel() for parameter in adapted.trainable_parameters().values())
        assert said in (None, found), f"trainable_parameters() says {said} for an embedding; {found} are trained"

    def test_on_an_embedding_all_that_is_trained_learns(self) -> None:
        """And what is computed has the type of the frozen rows."""
        adapted = self.embedding()
        if adapted is None:
            return
        ids = torch.tensor([3, 69, 3, 11])
        moved(adapted).train()(ids).square().sum().backward()
        without = [name for name, p in adapted.trainable_parameters().items() if p.grad is None or not p.grad.any()]
        assert not without, f"on an embedding no gradient reaches {', '.join(without)}"
        adapted.frozen = EmbeddingWeight(adapted.frozen.dequantize().T.bfloat16().contiguous())
        assert adapted.eval()(ids).dtype == torch.bfloat16, "rows in bfloat16 must stay so: the layers behind take them"

    def test_on_an_embedding_its_state_and_pefts_form_hold_all_of_it(self, tmp_path: Path) -> None:
        """`adapter_state` and `load_adapter_state`, `peft_tensors` and `from_peft`; peft computes the same."""
        first, other = self.embedding(), self.embedding(seed=9)
        if first is None or other is None:
            return
        ids = torch.tensor([[3, 69, 3], [0, 5, 11]])
        other.load_adapter_state(copied(moved(first).adapter_state()))
        assert torch.equal(first(ids), other(ids)), "adapter_state() does not hold all of an embedding's adapter"
        config = self.make().peft_config()
        if config is None:
            return
        tensors = self.make().peft_tensors(first)
        assert same(first.adapter_state(), self.make().from_peft(tensors)), "from_peft does not lead back to the state"
        wrapped = load_with_peft(tmp_path, config, tensors, OneEmbedding(first))
        off = distance(wrapped(ids), first(ids))
        assert off <= 1e-5, f"peft computes something else of an embedding: off by {off:.1e}"


def _works_as_it_is(host: PluginHost, registered: RegisteredProvider) -> bool:
    """Tells whether a provider can be used without a field of the recipe or another installation."""
    fields = host.registry.config_class(registered).model_fields.values()
    return not host.registry.missing_requirements(registered.provider) and not any(f.is_required() for f in fields)


def original_of(rows: int, columns: int, seed: int = 1) -> torch.Tensor:
    """Returns a weight before it is quantized, always the same one of this shape and seed.

    Args:
        rows: The layer's outputs.
        columns: Its inputs.
        seed: What its normal numbers are drawn from.
    """
    return normal(rows, columns, seed=seed)


class SampleOriginals:
    """What `Layer.original` and `Layer.requantize` ask where there is no model.

    Args:
        quantizer: What stored the weights.
        seed: Of `original_of`.
    """

    def __init__(self, quantizer: Quantizer, seed: int = 1) -> None:
        self._quantizer = quantizer
        self._seed = seed

    def original(self, layer: LayerInfo) -> torch.Tensor:
        """Returns the weight, `[out, in]`."""
        return original_of(layer.out_features, layer.in_features, self._seed)

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        """Stores a matrix."""
        return self._quantizer.quantize(weight, layer)


def layer_with(
    weight: FrozenWeight,
    generator: torch.Generator,
    *,
    biased: bool = False,
    originals: OriginalWeights | None = None,
) -> Layer:
    """Returns a layer, always with the same bias or with none.

    Args:
        weight: The frozen weight, `[out, in]`.
        generator: What an adapter's start is drawn from.
        biased: Whether it has a bias.
        originals: What gives the weight before it was quantized; none when left out.
    """
    info = LayerInfo("layer", "linear", weight.out_features, weight.in_features, biased)
    return Layer(info, weight, normal(weight.out_features, seed=4) if biased else None, generator, originals)


def bias_delta(adapted: AdaptedWeight) -> torch.Tensor:
    """Returns what a merge adds to the bias, zeros for nothing, and makes sure that it can be added."""
    change = adapted.bias_delta()
    if change is None:
        return torch.zeros(adapted.info.out_features)
    assert adapted.bias is not None, "bias_delta() must be None where the layer has no bias"
    found = (change.dtype, tuple(change.shape), change.requires_grad)
    wanted = (torch.float32, (adapted.info.out_features,), False)
    assert found == wanted, f"bias_delta() has dtype, shape and requires_grad {found}, not {wanted}"
    return change


def moved(adapted: AdaptedWeight) -> AdaptedWeight:
    """Changes every trainable parameter, as training would, always alike."""
    with torch.no_grad():
        for seed, parameter in enumerate(adapted.trainable_parameters().values(), 100):
            parameter.add_(0.1 * normal(*parameter.shape, seed=seed))
    return adapted


def doubled(adapted: AdaptedWeight) -> AdaptedWeight:
    """Turns the adapter's own numbers into double precision; the frozen weight computes in whatever its input is."""
    frozen, adapted.frozen = adapted.frozen, nn.Identity()  # type: ignore[assignment]
    adapted.double()
    adapted.frozen = frozen
    return adapted


def train(adapted: AdaptedWeight, x: torch.Tensor, target: torch.Tensor) -> list[float]:
    """Takes twenty steps and returns the loss before each and after the last, judged in evaluation mode.

    Args:
        adapted: The layer.
        x: Inputs, `[examples, in]`.
        target: What the outputs are to become, `[examples, out]`.
    """
    optimizer = torch.optim.AdamW(adapted.trainable_parameters().values(), lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(20):
        losses.append(nn.functional.mse_loss(adapted.eval()(x), target).item())
        optimizer.zero_grad()
        nn.functional.mse_loss(adapted.train()(x), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return [*losses, nn.functional.mse_loss(adapted.eval()(x), target).item()]


def seeded(adapted: AdaptedWeight, x: torch.Tensor) -> torch.Tensor:
    """Runs the layer with torch's random state seeded."""
    torch.manual_seed(0)
    result: torch.Tensor = adapted(x)
    return result


def copied(state: State) -> dict[str, torch.Tensor]:
    """Returns a state that nothing changes any more."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def same(first: State, second: State) -> bool:
    """Tells whether two states are equal, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class OneLayer(nn.Module):
    """A model that peft can wrap: one linear layer."""

    def __init__(self, adapted: AdaptedWeight) -> None:
        super().__init__()
        self.layer = nn.Linear(adapted.info.in_features, adapted.info.out_features, bias=adapted.bias is not None)
        self.layer.weight = nn.Parameter(adapted.frozen.dequantize(), requires_grad=False)
        if adapted.bias is not None:
            self.layer.bias = nn.Parameter(adapted.bias.clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`."""
        result: torch.Tensor = self.layer(x)
        return result


class OneEmbedding(nn.Module):
    """A model that peft can wrap: one embedding."""

    def __init__(self, adapted: AdaptedWeight) -> None:
        super().__init__()
        self.layer = nn.Embedding(adapted.info.in_features, adapted.info.out_features)
        self.layer.weight = nn.Parameter(adapted.frozen.dequantize().T.contiguous(), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to `[..., out]`."""
        result: torch.Tensor = self.layer(ids)
        return result


def load_with_peft(folder: Path, config: Mapping[str, Any], tensors: State, base: nn.Module) -> nn.Module:
    """Writes an adapter's folder and has peft load it onto a model, every tensor of it.

    Args:
        folder: Where to.
        config: What its adapter_config.json says besides the layer's name.
        tensors: Its tensors, under their names within the layer.
        base: The model, whose one layer is called `layer`.
    """
    peft = pytest.importorskip(
        "peft", reason="peft is not installed, which proves the adapter's form: pip install peft"
    )
    from safetensors.torch import save_file

    written = {"target_modules": ["layer"], "base_model_name_or_path": "", "inference_mode": True, **config}
    (folder / "adapter_config.json").write_text(json.dumps(written), encoding="utf-8")
    stored = {f"base_model.model.layer.{key}": tensor.contiguous() for key, tensor in copied(tensors).items()}
    save_file(stored, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    model: nn.Module = peft.PeftModel.from_pretrained(base, folder)
    odd = sorted(stored.keys() ^ set(peft.get_peft_model_state_dict(model)))
    assert not odd, f"peft_tensors and peft disagree on {', '.join(odd)}"
    return model.eval()
