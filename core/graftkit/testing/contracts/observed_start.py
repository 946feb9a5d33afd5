"""What an adapter promises that starts from the inputs of its layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import torch

from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import Layer, LayerInfo
from graftkit.interfaces.observing import ObservedStart, ObservingAdapter
from graftkit.interfaces.quantizer import Quantizer
from graftkit.testing.contracts.base import Contract, choose, refusal
from graftkit.testing.contracts.samples import distance, layer_of, normal

__all__ = ["ObservedStartContract"]

_MOST_TOKENS = 2048
_LAYERS = {"blocks.0.first": (12, 70), "blocks.0.second": (20, 70), "blocks.1.first": (12, 40)}
_SHARED = {"blocks.0.second": "blocks.0.first"}
"""Layers, their shapes, and which of them has another's inputs."""


class ObservedStartContract(Contract):
    """The promises of an `ObservingAdapter` whose fields ask for inputs; nothing is asked of others."""

    def observing(self) -> ObservingAdapter | None:
        """Returns the adapter, or None where it asks for no inputs."""
        made = self.make()
        return made if isinstance(made, ObservingAdapter) and made.observed_tokens else None

    def observed(self, adapter: ObservingAdapter, seed: int = 3) -> ObservedStart:
        """Has it see as many tokens as it asks for, 2,048 at most, in two passes."""
        observer = adapter.observer(self._infos())
        tokens = min(adapter.observed_tokens, _MOST_TOKENS)
        for path in (path for path in _LAYERS if path not in _SHARED):
            inputs = normal(tokens, _LAYERS[path][1], seed=seed + len(path))
            before = inputs.clone()
            for part in torch.split(inputs, -(-tokens // 2)):
                observer.observe(path, part)
            assert torch.equal(inputs, before), "observe() changes the inputs, which the model computes with"
        return observer.start(_SHARED)

    def test_its_start_follows_from_what_it_sees_alone(self) -> None:
        """A run that goes on may make it anew of the same tokens."""
        adapter = self.observing()
        if adapter is None:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            state = torch.get_rng_state()
            first = self.observed(adapter)
            assert torch.equal(state, torch.get_rng_state()), "its start draws from torch's global random state"
            torch.manual_seed(2)
            again = self.observed(self._observer_again())
        assert _told(first) == _told(again), "the same inputs give other options, or leave out other layers"
        assert _alike(first, again), "the same inputs give two different starts"
        other = self.observed(adapter, seed=99)
        assert not _alike(first, other), "other inputs give the same start: what is asked for has no part in it"

    def test_its_start_fits_what_is_attached_with_its_options(self) -> None:
        """The adapter is made anew with `options`; `tensors` then take the place of what `attach` gives."""
        adapter = self.observing()
        if adapter is None:
            return
        start = self.observed(adapter)
        unknown = sorted((start.tensors.keys() | start.left_out) - _LAYERS.keys())
        assert not unknown, f"start() names {', '.join(unknown)}, which observer() was not given"
        both = sorted(start.tensors.keys() & start.left_out)
        assert not both, f"start() gives tensors for {', '.join(both)}, and leaves the layer out"
        fields = {**self.choice.config.model_dump(), **start.options}
        assert json.loads(json.dumps(dict(start.options))) == dict(start.options), "options must be JSON"
        choice = choose(self.host(), self.kind, self.provider, fields)
        for info in self._infos():
            if info.path in start.left_out:
                continue
            weight = self._frozen(info)
            made: AdaptedWeight = self.create(choice).attach(Layer(info, weight, None, _generator())).eval()
            own, given = made.adapter_state(), start.tensors.get(info.path, {})
            for name, tensor in given.items():
                shape = list(own[name].shape) if name in own else None
                assert shape == list(tensor.shape), (
                    f"{info.path}: start() gives {name} {list(tensor.shape)}; attached with its options it is {shape}"
                )
            made.load_adapter_state({**own, **given})
            x = normal(5, info.in_features, seed=4)
            off = distance(made(x), weight(x))
            assert off <= 1e-6, f"{info.path}: with its start it computes something else than W alone ({off:.1e})"
            said = choice.config.trainable_parameters(info)
            found = sum(parameter.numel() for parameter in made.trainable_parameters().values())
            assert said in (None, found), f"trainable_parameters() says {said} with its options; {found} are trained"

    def test_too_few_inputs_are_refused(self) -> None:
        """Of a run whose records have no token to learn nothing is seen: `start` raises ValueError."""
        adapter = self.observing()
        if adapter is None:
            return
        observer = adapter.observer(self._infos())
        did = refusal(lambda: observer.start(_SHARED))
        assert not did, f"start() must raise ValueError where nothing was seen; it {did}"

    def _observer_again(self) -> ObservingAdapter:
        made = self.observing()
        assert made is not None, "made twice, it asks for inputs only once"
        return made

    def _infos(self) -> list[LayerInfo]:
        infos = [LayerInfo(path, "linear", *shape) for path, shape in _LAYERS.items()]
        return [info for info in infos if self.choice.config.refusal(info) is None]

    def _frozen(self, info: LayerInfo) -> FrozenWeight:
        host = self.host()
        quantizer: Quantizer = self.create(choose(host, "quantizer", "none", {}))
        weight = normal(info.out_features, info.in_features, seed=6)
        return quantizer.quantize(weight, replace(layer_of(weight), path=info.path))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def _told(start: ObservedStart) -> tuple[Mapping[str, object], frozenset[str]]:
    return dict(start.options), start.left_out


def _alike(first: ObservedStart, second: ObservedStart) -> bool:
    tensors = [
        {f"{path}.{name}": t for path, own in start.tensors.items() for name, t in own.items()}
        for start in (first, second)
    ]
    return tensors[0].keys() == tensors[1].keys() and all(torch.equal(t, tensors[1][k]) for k, t in tensors[0].items())
