"""What every model source promises."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.model_source import PLAIN, BaseModelFiles
from graftkit.interfaces.stored_weight import StoredWeight
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.load import load_base_model
from graftkit.testing.contracts.base import Contract, check_interface, choose, refusal
from graftkit.testing.contracts.samples import distance
from graftkit.testing.fresh import call_fresh
from graftkit.testing.tiny import tiny_model_folder

__all__ = ["ModelSourceContract"]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class ModelSourceContract(Contract):
    """Opens a sample model and reads it twice.

    Example:
        >>> class TestFolder(ModelSourceContract):
        ...     provider = "huggingface"
    """

    kind = "model-source"

    def sample(self, folder: Path) -> str:
        """Makes a model and returns its reference. Override it where that is no Hugging Face folder."""
        return str(tiny_model_folder(folder / "model"))

    def missing(self, folder: Path, reference: str) -> str:
        """Returns a reference of the sample's form to a model that isn't there."""
        return str(folder / "nowhere" / "model") + Path(reference).suffix

    @pytest.fixture
    def reference(self, tmp_path: Path) -> str:
        """What the sample is opened by."""
        folder = tmp_path / "sample"
        folder.mkdir()
        return self.sample(folder)

    @pytest.fixture
    def files(self, reference: str) -> BaseModelFiles:
        """The sample, opened."""
        return self.open(reference)

    def open(self, reference: str) -> BaseModelFiles:
        """Opens a model with the provider."""
        opened: BaseModelFiles = self.make().open(reference)
        return opened

    def test_it_accepts_what_it_opens_and_leaves_the_rest_to_others(self, reference: str, tmp_path: Path) -> None:
        """Sources are asked in turn; one that accepts everything shuts out those after it."""
        notes = tmp_path / "notes.txt"
        notes.write_text("no model at all\n")
        assert self.make().accepts(reference) is True, f"accepts({reference!r}) is not True, yet it opens it"
        assert self.make().accepts(str(notes)) is False, "accepts() is not False for a file that is no model"

    def test_accepting_never_fails(self) -> None:
        """Whatever a recipe says: opening is where errors belong."""
        for strange in ("", "x" * 5000, "nul\0inside", "../..", "\ud800", "C:\\models\\x"):
            answer = self.make().accepts(strange)
            assert isinstance(answer, bool), f"accepts({strange[:20]!r}) returned {answer!r}, no bool"

    def test_a_model_that_is_not_there_is_a_model_error(self, reference: str, tmp_path: Path) -> None:
        """With exit code 2 and no traceback."""
        wanted = self.missing(tmp_path, reference)
        did = refusal(lambda: self.open(wanted), ModelError)
        assert not did, f"open({wanted!r}), which isn't there, must raise ModelError; it {did}"

    def test_a_truncated_file_is_a_model_error(self, reference: str) -> None:
        """An interrupted download is found out, at the latest when the weights are read."""
        for path in self.open(reference).files:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            did = refusal(lambda: list(self.open(reference).read()), ModelError)
            path.write_bytes(whole)
            assert not did, f"with half of {path.name}, open() or read() must raise ModelError; it {did}"

    def test_opening_reads_headers_only_and_loads_no_torch(self, reference: str) -> None:
        """A request is judged in a moment, before torch is there."""
        heavy = call_fresh("graftkit.testing.errands:open_model", self.choice.facts(), reference)
        assert not heavy, f"open() loads {', '.join(heavy)}: import them in read() and save_tokenizer()"

    def test_what_it_opens_has_everything_that_the_interface_names(self, files: BaseModelFiles, reference: str) -> None:
        """With the configuration's architecture, and files that are there."""
        check_interface(files, BaseModelFiles)
        assert files.reference == reference, f"reference is {files.reference!r}, not what was asked for"
        assert isinstance(files.config.get("model_type"), str), "config has no model_type, as a config.json has"
        assert files.files, "files is empty: their hashes go into the manifest"
        gone = [str(path) for path in files.files if not path.is_file()]
        assert not gone, f"{', '.join(gone)} of files is no file"

    def test_names_and_shapes_are_those_that_are_read(self, files: BaseModelFiles) -> None:
        """Each tensor once."""
        read = [(name, tuple(tensor.shape)) for name, tensor in files.read()]
        assert len(read) == len(dict(read)), "read() yields a name twice"
        headers = {name: tuple(info.shape) for name, info in files.tensors.items()}
        odd = sorted({name for name, _ in headers.items() ^ set(read)})
        assert not odd, f"tensors and read() differ in name or shape: {', '.join(odd[:5])}"

    def test_one_tensor_is_in_memory_at_a_time(self, files: BaseModelFiles) -> None:
        """A model larger than the memory is quantized as it streams by."""
        reading, kept = files.read(), 0
        former = _next_and_forget(reading)
        while former is not None:
            following = _next_and_forget(reading)
            if former() is not None:
                gc.collect()
            kept += former() is not None
            former = following
        assert not kept, f"read() still holds {kept} tensors after the next one was asked for: yield them one by one"

    def test_every_tensor_is_plain_finite_and_on_the_cpu(self, files: BaseModelFiles) -> None:
        """Float32, float16 or bfloat16."""
        for name, tensor in files.read():
            if isinstance(tensor, StoredWeight):
                said = files.tensors[name].dtype
                assert said == tensor.kind and said not in PLAIN, (
                    f"{name} is stored as {tensor.kind}, tensors says {said}: kinds that nobody knows are refused by it"
                )
                assert all(part.device.type == "cpu" for part in tensor.tensors.values()), f"{name} is not on the CPU"
                continue
            assert tensor.dtype in FLOATS, f"{name} is {tensor.dtype}: read() gives float32, float16 or bfloat16"
            assert tensor.device.type == "cpu", f"{name} is on {tensor.device}"
            assert bool(torch.isfinite(tensor).all()), f"{name} holds NaN or infinity"

    def test_reading_twice_gives_the_same(self, files: BaseModelFiles, reference: str) -> None:
        """An export's proof reads the model again."""
        first = {name: [part.clone() for part in _parts(tensor)] for name, tensor in files.read()}
        for again in (files, self.open(reference)):
            for name, tensor in again.read():
                same = all(map(torch.equal, _parts(tensor), first[name]))
                assert same, f"{name} is another when it is read again"

    def test_a_tensor_by_its_name_is_what_read_yields(self, files: BaseModelFiles) -> None:
        """Bit for bit, in whatever order they are asked for, and more than once."""
        read = dict(files.read())
        for name in [*reversed(read), *read]:
            off = _difference(files.tensor(name), read[name])
            assert not off, f"tensor({name!r}) is not what read() yields under this name: {off}"

    def test_a_tensor_by_its_name_needs_no_other(self, files: BaseModelFiles, reference: str) -> None:
        """An adapter asks for the weight of one layer at a time, of a model that may be larger than the memory."""
        sizes = {name: sum(part.nbytes for part in _parts(tensor)) for name, tensor in files.read()}
        smallest = min(reversed(sizes), key=lambda name: sizes[name])  # the last of them, past the others
        _ = self.open(reference).tensor(smallest)  # imports what it needs
        opened = self.open(reference)
        needed, others = _bytes_made(lambda: opened.tensor(smallest)), sum(sizes.values()) - sizes[smallest]
        assert needed <= sizes[smallest] + others / 2, (
            f"tensor({smallest!r}) makes {needed:,} bytes for {sizes[smallest]:,}: read that tensor alone"
        )

    def test_a_tensor_of_an_unknown_name_is_a_model_error(self, files: BaseModelFiles) -> None:
        """As it is wherever the files are not what was asked for."""
        did = refusal(lambda: files.tensor("no.tensor.of.this.name"), ModelError)
        assert not did, f"tensor() of a name that is not in tensors must raise ModelError; it {did}"

    def test_a_weight_that_is_kept_as_it_lies_computes_what_its_source_dequantizes(self, files: BaseModelFiles) -> None:
        """What `StoredWeight.freeze` makes, which `quantizer: stored` trains on."""
        for name, found in files.read():
            if not isinstance(found, StoredWeight):
                continue
            said = files.tensors[name].nbytes
            if found.freeze is not None:
                check_kept(found, said, name)
            by_matrix = files.tensors[name].by_matrix
            assert by_matrix == (found.matrix is not None), f"{name}: by_matrix is {by_matrix}, and `matrix` otherwise"
            if found.matrix is not None:
                check_stack(found, said, name)

    def test_its_tokenizer_is_loaded_by_the_backend_that_it_names(self, files: BaseModelFiles, tmp_path: Path) -> None:
        """And has no more ids than the model has rows."""
        folder = tmp_path / "tokenizer"
        folder.mkdir()
        files.save_tokenizer(folder)
        backend = self.create(choose(self.host(), "tokenizer", files.tokenizer_backend, {}))
        tokenizer: Tokenizer = backend.load(folder)
        assert tokenizer.encode("some text"), f"the {files.tokenizer_backend} tokenizer makes no tokens of a text"
        rows = text_settings(files.config).get("vocab_size")
        fits = isinstance(rows, int) and tokenizer.vocab_size <= rows
        assert fits, f"the tokenizer has {tokenizer.vocab_size} ids, config's vocab_size is {rows}"

    def test_it_loads_into_the_architecture(self, files: BaseModelFiles) -> None:
        """Names and shapes are those of transformers, and the model computes numbers."""
        quantizer = self.create(choose(self.host(), "quantizer", "none", {}))
        model = load_base_model(files, quantizer, device=torch.device("cpu"))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[5, 9, 7, 7]])).logits
        assert bool(torch.isfinite(logits).all()), "the loaded model's logits are no numbers"


def check_products(frozen: FrozenWeight, name: str) -> None:
    """Compares a frozen weight's product, and its input's gradient, with those of the dequantized matrix."""
    __tracebackhide__ = True
    x = torch.linspace(-1, 1, 3 * frozen.in_features).view(3, -1).requires_grad_()
    dense = frozen.dequantize()
    y = frozen(x)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    wanted = x @ dense.T
    (wanted_grad,) = torch.autograd.grad(wanted.square().sum(), x)
    for what, own, other in (("product", y, wanted), ("input's gradient", grad, wanted_grad)):
        off = distance(own.detach(), other.detach())
        assert off < 1e-4, f"{name}: the {what} is off by {off:.1e} of that with dequantize()"


def check_kept(found: StoredWeight, said: int | None, name: str) -> None:
    """Compares what `freeze` makes with what `dequantize` does, and its bytes with those in the headers.

    Args:
        found: The weight.
        said: The bytes that the headers say.
        name: The tensor's name.
    """
    assert found.freeze is not None
    assert found.dequantize is not None, f"{name} can be kept and not dequantized: no other quantizer takes it"
    frozen, dense = found.freeze(), found.dequantize()
    assert torch.equal(frozen.dequantize(dense.dtype), dense), f"{name}: freeze() makes another matrix"
    assert frozen.nbytes == said, f"{name}: nbytes is {frozen.nbytes}, tensors says {said}"
    trained = [key for key, parameter in frozen.named_parameters() if parameter.requires_grad]
    assert not trained, f"{', '.join(trained)} of {name} must be Parameter(..., requires_grad=False)"
    again = type(frozen).from_state(frozen.state(), json.loads(json.dumps(frozen.meta())))
    assert torch.equal(again.dequantize(), frozen.dequantize()), f"{name}: the weight from its state is another"
    check_products(frozen, name)


def check_stack(found: StoredWeight, said: int | None, name: str) -> None:
    """Compares each matrix of a stack with the stack, whichever way round the architecture has it.

    Args:
        found: The stack, `[matrices, ...]`.
        said: The bytes that the headers say of all of it.
        name: The tensor's name.
    """
    assert found.matrix is not None
    assert found.dequantize is not None, (
        f"{name} gives its matrices and can't be dequantized: no other quantizer takes it"
    )
    stack = found.dequantize()
    for number, dense in enumerate(stack):
        one = found.matrix(number)
        assert one.dequantize is not None, f"{name}: matrix({number}) can't be dequantized"
        made = one.dequantize()
        same = torch.equal(made, dense) or torch.equal(made, dense.T)
        assert same, f"{name}: matrix({number}) is none of the stack's"
        if one.freeze is not None:
            check_kept(one, None if said is None else said // len(stack), f"matrix({number}) of {name}")


def _parts(found: torch.Tensor | StoredWeight) -> list[torch.Tensor]:
    """Returns a tensor, or those that a stored weight consists of."""
    return list(found.tensors.values()) if isinstance(found, StoredWeight) else [found]


def _difference(found: torch.Tensor | StoredWeight, expected: torch.Tensor | StoredWeight) -> str:
    """Returns in what two of them differ, or nothing."""
    if type(found) is not type(expected):
        return f"it is a {type(found).__name__}, not a {type(expected).__name__}"
    if isinstance(found, StoredWeight) and isinstance(expected, StoredWeight):
        for field in ("kind", "shape", "meta"):
            if getattr(found, field) != getattr(expected, field):
                return f"its {field} is {getattr(found, field)}, not {getattr(expected, field)}"
        if (found.dequantize is None) != (expected.dequantize is None):
            return "only one of them can be dequantized"
        if found.tensors.keys() != expected.tensors.keys():
            return f"it has the tensors {', '.join(found.tensors)}, not {', '.join(expected.tensors)}"
        pairs = [(found.tensors[name], tensor) for name, tensor in expected.tensors.items()]
    else:
        pairs = list(zip(_parts(found), _parts(expected), strict=True))
    for own, other in pairs:
        if (own.dtype, own.shape) != (other.dtype, other.shape):
            return f"it is {own.dtype} {list(own.shape)}, not {other.dtype} {list(other.shape)}"
        if not torch.equal(own, other):
            return "its numbers are others"
    return ""


def _bytes_made(call: Callable[[], object]) -> int:
    """Returns the bytes of all tensors that a call makes, or of the memory that it takes where that is more.

    Tensors that are freed meanwhile count, so that reading a whole model for one tensor is seen however it is done.
    Torch's own memory is not in tracemalloc's sum, and numpy's is.
    """
    made: list[weakref.ref[torch.Tensor]] = []
    total = 0

    def look(*_: object) -> None:
        nonlocal total
        known = {id(tensor) for reference in made if (tensor := reference()) is not None}
        for new in gc.get_objects():
            if issubclass(type(new), torch.Tensor) and id(new) not in known:
                made.append(weakref.ref(new))
                total += new.nbytes

    profiler = sys.getprofile()
    gc.collect()
    gc.freeze()  # leaves what there was already out of get_objects()
    tracemalloc.start()
    try:
        sys.setprofile(look)
        call()
        sys.setprofile(profiler)
        return max(total, tracemalloc.get_traced_memory()[1])
    finally:
        sys.setprofile(profiler)
        tracemalloc.stop()
        gc.unfreeze()


def _next_and_forget(
    reading: Iterator[tuple[str, torch.Tensor | StoredWeight]],
) -> weakref.ref[torch.Tensor | StoredWeight] | None:
    """Asks for the next tensor and keeps no more than a way to see whether somebody else does."""
    for _, tensor in reading:
        return weakref.ref(tensor)
    return None
