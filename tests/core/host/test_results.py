"""What a provider's method gives is looked at where it is called, and an error names who gave it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graftkit.errors import ExportError, GraftkitError, ModelError, PluginCallError
from graftkit.host.guard import guarded_class, wrong_result
from graftkit.host.records import PluginRecord
from graftkit.host.results import wrong_with
from graftkit.interfaces.exporter import LoadedAssets, Probe
from graftkit_quantizers.dense import Dense

REQUEST = SimpleNamespace(probes=[Probe((1, 2, 3), (0, 2))])
WEIGHT = torch.ones(2, 3)
PLUGIN = PluginRecord("odd", "acme", "1.5", "acme")


def dense(weight: torch.Tensor) -> Any:
    return Dense.quantize(Dense.__new__(Dense), weight, SimpleNamespace(path="a"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "method", "given", "wrong", "right"),
    [
        ("exporter", "refusal", (), 3, "no"),
        ("exporter", "notices", (), "abc", ["abc"]),
        ("exporter", "notices", (), None, []),
        ("exporter", "export", (None, Path.cwd()), None, {}),
        ("exporter", "export", (None, Path("nowhere")), {}, None),
        ("exporter", "logits", (REQUEST,), None, [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [], [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [[1.0]], [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [torch.ones(2, 5).long()], [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [torch.ones(3, 5)], [torch.ones(2, 5).half()]),
        ("exporter", "assets", (REQUEST,), {}, LoadedAssets()),
        ("exporter", "assets", (REQUEST,), LoadedAssets(tokens="abc"), LoadedAssets(tokens=[[1]])),
        ("exporter", "assets", (REQUEST,), LoadedAssets(added=[1, 2]), LoadedAssets(added=[[1], []])),
        ("adapter", "attach", (), torch.nn.Linear(2, 2), None),
        ("adapter", "peft_config", (), 3, {}),
        ("adapter", "peft_tensors", (), None, {}),
        ("quantizer", "quantize", (WEIGHT,), None, dense(WEIGHT)),
        ("quantizer", "quantize", (WEIGHT,), dense(WEIGHT.T.contiguous()), dense(WEIGHT)),
        ("quantizer", "adopt", (WEIGHT,), WEIGHT, None),
    ],
)
def test_another_kind_of_result_is_told(kind: Any, method: str, given: Any, wrong: Any, right: Any) -> None:
    assert wrong_with(kind, method, given, wrong)
    made = guarded_class(type("Made", (), {method: lambda self, *given: wrong}), PLUGIN, kind, "twig")()
    with pytest.raises(
        PluginCallError, match=rf"plugin 'odd' of acme 1.5: {method}\(\) of its {kind} 'twig' (gave|has)"
    ):
        getattr(made, method)(*given)
    if right is not None:
        assert wrong_with(kind, method, given, right) == ""


class Raising:
    """Raises in its own code, or has core raise."""

    def own(self) -> None:
        raise ExportError("it has no such form")

    def placed(self) -> None:
        raise ExportError("it has no such form", where="model/config.json")

    def cores(self, given: Any) -> None:
        given()


def test_an_error_without_a_place_names_the_plugin_whose_own_code_raised_it() -> None:
    made = guarded_class(Raising, PluginRecord("odd", "acme", "1.5", "acme"), "exporter", "twig")()
    notes = {}
    for method, arguments in (("own", ()), ("placed", ()), ("cores", (PluginRecordless.refuse,))):
        with pytest.raises(GraftkitError) as caught:
            getattr(made, method)(*arguments)
        notes[method] = getattr(caught.value, "__notes__", [])
    assert notes["own"] == ["plugin 'odd' of acme 1.5 raised it: own() of its exporter 'twig'"]
    assert notes["placed"] == notes["cores"] == []


class PluginRecordless:
    """Stands for code of core's, which is in no plugin's module."""

    @staticmethod
    def refuse() -> None:
        code = compile("def refuse(error):\n    raise error", "core", "exec")
        names: dict[str, Any] = {"__name__": "graftkit.somewhere"}
        exec(code, names)
        names["refuse"](ModelError("the file has changed"))


def test_what_nobody_guards_is_called_by_its_class() -> None:
    assert str(wrong_result(object(), "delta", "gave None")) == "delta() of object gave None"
