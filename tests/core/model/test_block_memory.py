"""float32, a block at a time: the numbers are those of the whole model in float32, and no second copy is kept."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit import ProofRequest
from graftkit.errors import StorageError
from graftkit.interfaces.architecture import model_class
from graftkit.interfaces.block_memory import _file_mappings, float32_by_block
from graftkit.interfaces.exporter import Probe
from graftkit.model.dense_model import load_dense_model
from graftkit.model.load import load_base_model
from graftkit.model.row_scale import row_scale_of
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.nf4 import Nf4
from transformers import AutoConfig

IDS = torch.tensor([[257, 40, 41, 42, 43, 99, 101, 7, 7, 7, 255, 12]])


def load(folder: Path, dtype: torch.dtype) -> Any:
    kind: Any = model_class(AutoConfig.from_pretrained(folder))
    return kind.from_pretrained(folder, dtype=dtype)


@torch.no_grad()
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_in_half_precision_computes_as_it_does_in_float32(name: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, **ARCHITECTURES[name])
    model = load(folder, torch.bfloat16)
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = load(folder, torch.bfloat16).float()(input_ids=IDS).logits
    with float32_by_block(model):
        found = model(input_ids=IDS).logits
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    after = model.state_dict()
    assert all(after[name].dtype == stored[name].dtype and torch.equal(after[name], stored[name]) for name in stored)


WIDE = {"hidden_size": 80, "head_dim": 16}
"""The square root of 80, by which Gemma scales its embeddings, is no bfloat16 number."""
CONSTANTS: dict[str, dict[str, Any]] = {
    "gemma2": WIDE,
    "gemma3_text": WIDE,
    "gemma4_text": WIDE,
    "falcon_h1": {"ssm_multipliers": [0.35, 0.7, 0.1, 0.3, 1.3]},
    "gptj": {},
    "xglm": {},
}


@torch.no_grad()
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_that_half_precision_rounds_are_exact_in_float32(name: str, tmp_path: Path) -> None:
    """Who loads an export in float32 computes with those that the architecture computes in float32."""
    folder = tiny_model_folder(tmp_path, **{**ARCHITECTURES[name], **CONSTANTS[name]})
    files, half, exact = (
        HuggingFaceSource().open(str(folder)),
        load(folder, torch.bfloat16),
        load(folder, torch.float32),
    )
    model = load_base_model(files, Dense(), device=torch.device("cpu"), dtype=torch.bfloat16)
    assert torch.equal(model(input_ids=IDS).logits, half(input_ids=IDS).logits), "as transformers computes it"
    exact.load_state_dict(half.state_dict())
    expected = exact(input_ids=IDS).logits
    with float32_by_block(model):
        found = model(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    dense: Any = load_dense_model(files, Dense(), torch.bfloat16)
    torch.testing.assert_close(dense(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(input_ids=IDS).logits, half(input_ids=IDS).logits), "and afterwards"


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "gemma4_text"])
def test_a_scale_of_new_or_adapted_rows_is_exact_in_float32(name: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, **{**ARCHITECTURES[name], **WIDE})
    files = HuggingFaceSource().open(str(folder))
    model = load_base_model(files, Dense(), device=torch.device("cpu"), dtype=torch.bfloat16)
    scale = row_scale_of(model.get_input_embeddings())
    for dtype in (torch.float32, torch.bfloat16):
        embedding = load(folder, dtype).get_input_embeddings()
        rows = embedding.weight.data = torch.ones(1, 80, dtype=dtype)
        assert torch.equal(scale.times(rows), embedding(torch.tensor([0])))


@torch.no_grad()
def test_no_more_than_a_block_is_float32_at_a_time(tmp_path: Path) -> None:
    model = load(tiny_model_folder(tmp_path, num_hidden_layers=4), torch.bfloat16)
    seen: list[int] = []

    def count(*_: Any) -> None:
        seen.append(sum(p.dtype == torch.float32 for p in model.parameters()))

    for layer in model.model.layers:
        layer.mlp.register_forward_hook(count)
    with float32_by_block(model):
        model(input_ids=IDS)
    outside = 2  # norm and output layer, which is the embedding here
    assert seen == [len(list(model.model.layers[0].parameters())) + outside] * 4


@torch.no_grad()
def test_a_model_that_fails_is_left_as_it_was(tmp_path: Path) -> None:
    model = load(tiny_model_folder(tmp_path), torch.bfloat16)
    model.model.layers[1].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), float32_by_block(model):
        model(input_ids=IDS)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def resident_of_files() -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("RssFile:")[2].split()[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of mapped files is asked of Linux")
def test_a_mapped_model_is_not_in_memory_after_it_has_run(on_disk: Path) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "head_dim": 128}
    model = load(tiny_model_folder(on_disk, **sizes), torch.float32)
    size = sum(p.nbytes for p in model.parameters())
    assert _file_mappings() and size > 100e6
    request = ProofRequest(on_disk, [Probe((1, 2, 3), (2,))], lambda: model)
    first = request.run(model)
    before = resident_of_files()
    with torch.no_grad():
        plain = model(input_ids=torch.tensor([[1, 2, 3]])).logits[0, 2:]
    assert resident_of_files() - before > size / 2, "the model is no mapped file: the test shows nothing"
    again = request.run(model)
    assert resident_of_files() - before < size / 4
    torch.testing.assert_close(first[0], plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(again[0], first[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not say what is mapped")
def test_files_are_found_whatever_ends_of_lines_their_names_have(tmp_path: Path) -> None:
    """A run in a folder with a carriage return in its name failed where its exports began."""
    path = tmp_path / "a\rb\x0bc\x1cd\x85e\u2028f\ng"
    path.write_bytes(bytes(mmap.PAGESIZE))
    before = _file_mappings()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert len({*_file_mappings()} - {*before}) == 1


@torch.no_grad()
def test_a_dense_model_in_files_is_the_one_in_memory(tmp_path: Path) -> None:
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model", hidden_size=256, head_dim=64)))
    (tmp_path / "kept").mkdir()
    mapped = load_dense_model(files, Nf4(), torch.bfloat16, tmp_path / "kept")
    plain = load_dense_model(files, Nf4(), torch.bfloat16)
    if sys.platform.startswith("linux"):
        where = mapped.get_parameter("model.layers.0.mlp.up_proj.weight").data_ptr()
        assert any(start <= where < end for start, end in _file_mappings())
        assert not list((tmp_path / "kept").iterdir()), "a killed proof would leave its files"
    assert torch.equal(mapped(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    assert [p.shape for p in mapped.parameters()] == [p.shape for p in plain.parameters()]
    mapped.get_parameter("model.layers.0.mlp.up_proj.weight").add_(1)  # as an exporter may, which holds deltas alone
    assert not torch.equal(mapped(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_a_disk_that_refuses_the_files_of_a_dense_model_is_told_with_a_remedy(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="the system has no limit of a file's size")
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model", hidden_size=256, head_dim=64)))
    (tmp_path / "kept").mkdir()
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, former[1]))
    try:
        with pytest.raises(StorageError, match="File too large") as caught:
            load_dense_model(files, Nf4(), torch.float32, tmp_path / "kept")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert caught.value.where == str(tmp_path / "kept") and "ulimit -f" in caught.value.hint
