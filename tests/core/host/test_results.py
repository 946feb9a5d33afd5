"""What a provider's method gives is looked at where it is called, and an error names who gave it."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from graftkit.errors import ExportError, GraftkitError, ModelError, PluginCallError
from graftkit.host.guard import guarded_class, wrong_result
from graftkit.host.records import PluginRecord
from graftkit.host.results import wrong_with
from graftkit.interfaces.exporter import LoadedAssets, Probe
from graftkit.interfaces.model_source import TensorInfo
from graftkit.interfaces.tokenizer import Encoding, Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, NewToken, TrainingSpec
from graftkit_quantizers.dense import Dense

REQUEST = SimpleNamespace(probes=[Probe((1, 2, 3), (0, 2))])
WEIGHT = torch.ones(2, 3)
PLUGIN = PluginRecord("odd", "acme", "1.5", "acme")


ANSWERED = SimpleNamespace(record=SimpleNamespace(where="a:1"))


def nothing() -> None:
    """Stands for a method."""


def tokenizer(**odd: Any) -> Any:
    """Returns what looks like a tokenizer, but for some of its members."""
    members = {name: nothing for name in vars(Tokenizer) if not name.startswith("_")}
    own = {"vocab_size": 9, "special_tokens": {"a": 8}}
    return SimpleNamespace(**{**members, **own, "chat_template": None, "adds_bos": False, **odd})


def model(**odd: Any) -> Any:
    """Returns what looks like an opened model, but for some of its members."""
    own = {"reference": "m", "tokenizer_backend": "b", "files": (Path("a"),), "config": {"a": 1}}
    tensors = {"a": TensorInfo((2, 3), "F32")}
    methods = {"read": nothing, "tensor": nothing, "save_tokenizer": nothing}
    return SimpleNamespace(**{**own, "tensors": tensors, **methods, **odd})


TOKENIZER, MODEL = tokenizer(), model()


def dense(weight: torch.Tensor) -> Any:
    return Dense.quantize(Dense.__new__(Dense), weight, SimpleNamespace(path="a"))  # type: ignore[arg-type]


HOLDS_ITSELF: dict[str, Any] = {}
HOLDS_ITSELF["a"] = HOLDS_ITSELF
NEW_ROWS = SimpleNamespace(ids=(5, 6, 7), weight=torch.ones(5, 4))


@pytest.mark.parametrize(
    ("kind", "method", "given", "wrong", "right"),
    [
        ("exporter", "refusal", (), 3, "no"),
        ("exporter", "notices", (), "abc", ["abc"]),
        ("exporter", "notices", (), None, []),
        ("exporter", "notices", (), ["x" * 10_000], ["x" * 4000] * 100),
        ("exporter", "notices", (), ["x"] * 101, ["x"]),
        ("exporter", "export", (None, Path(__file__).parent), None, {}),
        ("exporter", "export", (None, Path("nowhere")), {}, None),
        ("exporter", "logits", (REQUEST,), None, [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [], [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [[1.0]], [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [torch.ones(2, 5).long()], [torch.ones(2, 5)]),
        ("exporter", "logits", (REQUEST,), [torch.ones(3, 5)], [torch.ones(2, 5).half()]),
        ("exporter", "assets", (REQUEST,), {}, LoadedAssets()),
        ("exporter", "assets", (REQUEST,), LoadedAssets(tokens="abc"), LoadedAssets(tokens=[[1]])),
        ("exporter", "assets", (REQUEST,), LoadedAssets(decoded=[b"a"]), LoadedAssets(decoded=["a"])),
        ("exporter", "assets", (REQUEST,), LoadedAssets(added=[1, 2]), LoadedAssets(added=[[1], []])),
        ("adapter", "attach", (), torch.nn.Linear(2, 2), None),
        ("adapter", "peft_config", (), 3, {}),
        ("adapter", "peft_config", (), {"a": {1}}, {"a": [1]}),
        ("adapter", "peft_config", (), {"a": float("nan")}, None),
        ("adapter", "peft_tensors", (), None, {}),
        ("adapter", "peft_tensors", (), {"a": WEIGHT.int()}, {"a": WEIGHT.half()}),
        ("adapter", "peft_tensors", (), {5: WEIGHT}, {"a": WEIGHT}),
        ("adapter", "peft_tensors", (), {"a": [1.0]}, {"a": WEIGHT}),
        ("quantizer", "quantize", (WEIGHT,), None, dense(WEIGHT)),
        ("quantizer", "quantize", (WEIGHT,), dense(WEIGHT.T.contiguous()), dense(WEIGHT)),
        ("quantizer", "adopt", (WEIGHT,), WEIGHT, None),
        ("initializer", "rows", (NEW_ROWS,), None, torch.ones(3, 4)),
        ("initializer", "rows", (NEW_ROWS,), torch.ones(3, 4).long(), torch.ones(3, 4).half()),
        ("initializer", "rows", (NEW_ROWS,), torch.ones(4, 3), torch.ones(3, 4)),
        ("initializer", "rows", (NEW_ROWS,), torch.ones(3, 4, device="meta"), torch.ones(3, 4)),
        ("initializer", "rows", (NEW_ROWS,), torch.ones(3, 4).double() * 1e300, torch.ones(3, 4).double()),
        ("metric", "score", (ANSWERED,), float("nan"), 0.5),
        ("metric", "score", (ANSWERED,), 10**400, 1),
        ("metric", "score", (ANSWERED,), "1", True),
        ("model-source", "open", ("m",), None, MODEL),
        ("model-source", "open", ("m",), model(tensors={"a": 3}), MODEL),
        ("model-source", "open", ("m",), model(config=None), MODEL),
        ("model-source", "open", ("m",), model(files=("a",)), MODEL),
        ("model-source", "open", ("m",), model(config={"a": {1}}), model(config=MappingProxyType({"a": (1,)}))),
        ("model-source", "open", ("m",), model(config=HOLDS_ITSELF), MODEL),
        ("model-source", "open", ("m",), model(config={"a": "\ud800"}), MODEL),
        ("model-source", "open", ("m",), model(generation_config=[1]), model(generation_config={"a": 1})),
        ("model-source", "open", ("m",), model(generation_config={"a": {1}}), MODEL),
        ("model-source", "open", ("m",), model(license=5), model(license=None)),
        ("model-source", "open", ("m",), model(check_unchanged=5), model(check_unchanged=nothing)),
        ("model-source", "open", ("m",), model(reference="\ud800"), model(license="mit")),
        ("model-source", "open", ("m",), model(tensors={"a": TensorInfo((2.0,), "F32")}), MODEL),  # type: ignore[arg-type]
        ("model-source", "open", ("m",), model(tensors={"a": TensorInfo(None, "F32")}), MODEL),  # type: ignore[arg-type]
        ("model-source", "open", ("m",), model(tensors={"a": TensorInfo((-2, 3), "F32")}), MODEL),
        ("model-source", "open", ("m",), model(tensors={"a": TensorInfo((2, 3), 7)}), MODEL),  # type: ignore[arg-type]
        ("model-source", "open", ("m",), model(read=None), MODEL),
        ("tokenizer", "load", ("t",), None, TOKENIZER),
        ("tokenizer", "load", ("t",), tokenizer(vocab_size=10**12), TOKENIZER),
        ("tokenizer", "load", ("t",), tokenizer(vocab_size=True), TOKENIZER),
        ("tokenizer", "load", ("t",), tokenizer(special_tokens={"": 0}), TOKENIZER),
        ("tokenizer", "load", ("t",), tokenizer(special_tokens={"a\ud800": 0}), TOKENIZER),
        ("tokenizer", "load", ("t",), tokenizer(special_tokens={"a": 9}), TOKENIZER),
        ("tokenizer", "load", ("t",), tokenizer(chat_template=3), TOKENIZER),
        ("tokenizer", "load", ("t",), tokenizer(added_tokens={"a": -5}), tokenizer(added_tokens={"a": 1})),
        ("tokenizer", "load", ("t",), tokenizer(named_tokens={3: "a"}), tokenizer(named_tokens=print)),
        ("tokenizer", "load", ("t",), tokenizer(chat_templates={"a": None}), tokenizer(chat_templates={"a": "b"})),
        ("tokenizer", "load", ("t",), tokenizer(encode=3), TOKENIZER),
    ],
)
def test_another_kind_of_result_is_told(kind: Any, method: str, given: Any, wrong: Any, right: Any) -> None:
    assert wrong_with(kind, method, given, wrong)
    made = guarded_class(type("Made", (), {method: lambda self, *given: wrong}), PLUGIN, kind, "twig")()
    with pytest.raises(
        PluginCallError, match=rf"plugin 'odd' of acme 1.5: {method}\(\) of its {kind} 'twig' (gave|has|scored)"
    ):
        getattr(made, method)(*given)
    if right is not None:
        assert wrong_with(kind, method, given, right) == ""


def extension(new: Any = None, **odd: Any) -> ExtensionPlan:
    """Returns a plan of three old tokens and two new ones, but for some of its members."""
    tokens = (NewToken(3, b"ab", (0, 1), 2), NewToken(4, b"abc", (0, 1, 2), 1))
    made: Any = {"tokenizer": lettered(new or [b"a", b"b", b"c", b"ab", b"abc"]), "tokens": tokens}
    return ExtensionPlan(**{**made, "coarsens": True, "base_tokens": 9, "tokens_after": 5, **odd})


def lettered(tokens: list[bytes], **odd: Any) -> Any:
    """Returns a tokenizer of these tokens."""
    return tokenizer(
        **{"vocab_size": len(tokens), "special_tokens": {"c": 2}, "token_bytes": tokens.__getitem__, **odd}
    )


def first(**odd: Any) -> ExtensionPlan:
    """Returns a plan whose first new token is odd."""
    plan = extension()
    return replace(plan, tokens=(replace(plan.tokens[0], **odd), plan.tokens[1]))


OLD = lettered([b"a", b"b", b"c"])


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (extension(tokens=None), "tokens are None"),
        (extension(tokens=(3, 4)), "not a tuple of NewTokens"),
        (extension(tokens=extension().tokens[::-1]), "new ids are not those from 3 to 4"),
        (extension(tokens=extension().tokens[:1]), "new ids are not those"),
        (extension(tokens=(*extension().tokens, *extension().tokens[:1])), "new ids are not those"),
        (first(id=-1), "new ids are not those"),
        (first(id=3.0), "new ids are not those"),
        (first(id="3"), "new ids are not those"),
        (first(data="ab"), "3 stands for other bytes"),
        (first(parts=(-1,)), "3 has parts"),
        (first(parts=(3,)), "3 has parts"),
        (first(parts=None), "3 has parts"),
        (first(uses=float("nan")), "counts tokens"),
        (extension(base_tokens=-1), "counts tokens"),
        (extension([b"b", b"a", b"c", b"ab", b"abc"]), "base's id 0 stands for other bytes"),
        (extension(tokenizer=lettered([b"a", b"b", b"c", b"ab", b"abc"], special_tokens={"c": 1})), "special tokens"),
    ],
)
def test_an_extension_that_does_not_fit_its_base_is_told(plan: ExtensionPlan, said: str) -> None:
    """Rows would be taken from ids of another meaning, or made for them, and nothing would say so."""
    assert wrong_with("tokenizer", "extend", (OLD, [], None), extension()) == ""
    assert said in wrong_with("tokenizer", "extend", (OLD, [], None), plan)


def test_a_trained_tokenizer_that_is_not_as_asked_for_is_told() -> None:
    right = lettered([b"<s>", b"</s>", b"a"], special_tokens={"<s>": 0, "</s>": 1})
    spec = TrainingSpec(3, ("<s>", "</s>"))
    assert wrong_with("tokenizer", "train", ([], spec), right) == ""
    assert "where 2 are most" in wrong_with("tokenizer", "train", ([], replace(spec, vocab_size=2)), right)
    moved = replace(spec, special_tokens=("</s>", "<s>"))
    assert "special tokens have the ids [1, 0]" in wrong_with("tokenizer", "train", ([], moved), right)
    lost = replace(spec, special_tokens=("<s>", "</s>", "<x>"))
    assert "the ids [0, 1, None]" in wrong_with("tokenizer", "train", ([], lost), right)


class Words:
    """Offers a tokenizer that gives what it was told to."""

    def __init__(self, gives: Any) -> None:
        self.gives = gives

    def load(self, path: object) -> Any:
        """Returns it."""

        class Made:
            def __getattr__(self, name: str) -> Any:
                return getattr(TOKENIZER, name)

        for name, gives in self.gives.items():
            setattr(Made, name, lambda self, *given, gives=gives: gives() if callable(gives) else gives)
        return Made()


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "given", "gives", "message"),
    [
        ("encode", ("a",), [1.0], "gave 1.0 among the ids"),
        ("encode", ("a",), [-1], "gave -1 among the ids"),
        ("encode", ("a",), [True], "gave True among the ids"),
        ("encode", ("a",), "abc", "gave a str, not a list of ids"),
        ("encode", ("a",), interrupt, "raised KeyboardInterrupt"),
        ("encode", ("a",), exit, "raised SystemExit"),
        ("encode_batch", (["a", "b"],), [[1]], "gave the ids of 1 texts for 2"),
        ("encode_offsets", ("a",), Encoding([1], []), "gave the places of 0 tokens for 1 ids"),
        ("decode", ([1],), b"a", "gave a bytes, not a text"),
        ("decode", ([1],), "\ud800", "gave a text with half of a surrogate pair"),
        ("token_bytes", (1,), None, "gave None, not bytes"),
        ("role_token", ("eos",), "</s>", "gave '</s>', not an id or None"),
        ("with_chat_template", ("a",), None, "gave None, not a Tokenizer"),
    ],
)
def test_what_a_tokenizer_gives_is_told(method: str, given: Any, gives: Any, message: str) -> None:
    made = guarded_class(Words, PLUGIN, "tokenizer", "twig")({method: gives}).load("a")
    place = rf"plugin 'odd' of acme 1.5: {method}\(\) of its tokenizer 'twig' {message}"
    with pytest.raises(PluginCallError, match=place):
        getattr(made, method)(*given)


def test_a_tokenizer_saves_regular_files_alone(tmp_path: Path) -> None:
    def written(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    (written("whole") / "tokenizer.json").write_text("{}")
    assert wrong_with("made tokenizer", "save", (tmp_path / "whole",), None) == ""
    (written("linked") / "passwd").symlink_to("/etc/passwd")
    for folder, message in ((written("empty"), "nothing"), (tmp_path / "linked", "passwd"), (tmp_path / "no", "rem")):
        assert message in wrong_with("made tokenizer", "save", (folder,), None)


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


@pytest.mark.skipif(sys.platform == "win32", reason="it has no pipes in folders")
class Changing:
    """An opened model that says something else of itself each time."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        self.times = count()

    def __getattr__(self, name: str) -> Any:
        return getattr(model(config={"a": next(self.times)}, reference=f"m{next(self.times)}"), name)


class ChangingSource:
    """A source that opens it."""

    def open(self, reference: str) -> Any:
        return Changing()


@dataclass
class Held:
    """An opened model that makes others of its class, as for another process."""

    reference: str
    config: dict[str, Any]
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    tokenizer_backend: str = "t"

    def read(self) -> Any: ...
    def tensor(self, name: str) -> Any: ...
    def save_tokenizer(self, folder: Path) -> Any: ...


class HeldSource:
    """A source that opens it."""

    def open(self, reference: str) -> Held:
        return Held(reference, {"a": 1})


def test_what_an_opened_models_methods_make_of_it_is_of_its_own_class() -> None:
    record = PluginRecord("p", "acme", "1", "p")
    opened: Any = guarded_class(HeldSource, record, "model-source", "held")().open("m")
    for made, reference in ((replace(opened, reference="n"), "n"), (pickle.loads(pickle.dumps(opened)), "m")):
        assert type(made) is Held and made == Held(reference, {"a": 1})


def test_an_opened_model_says_the_same_of_itself_each_time() -> None:
    record = PluginRecord("p", "acme", "1", "p")
    opened: Any = guarded_class(ChangingSource, record, "model-source", "odd")().open("m")
    assert opened.config == opened.config and opened.reference == opened.reference
    assert type(opened).__name__ == "Changing" and "plugin 'p'" in str(wrong_result(opened, "read", "gave None"))


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/etc/passwd")])
def test_an_export_with_what_is_no_file_is_told(tmp_path: Path, make: Any) -> None:
    """Whoever hashes a pipe waits for ever."""
    (tmp_path / "sub").mkdir()
    assert wrong_with("exporter", "export", (None, tmp_path), {}) == ""
    make(tmp_path / "sub" / "odd")
    assert "has written sub/odd, which is no regular file" in wrong_with("exporter", "export", (None, tmp_path), {})


def test_an_export_with_a_name_that_no_manifest_keeps_is_told(tmp_path: Path) -> None:
    """The run finished, and could be neither verified, nor answered with, nor replaced."""
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "sub") + b"\xff")).write_text("")
    except (OSError, UnicodeError):
        pytest.skip("this disk has names in UTF-8 alone")
    assert "a name that is not UTF-8" in wrong_with("exporter", "export", (None, tmp_path), {})
