"""What the campaign has found, each as a test of its kind."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graftkit
import numpy as np
import pytest
import torch
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import (
    DataError,
    ExportError,
    FolderError,
    GraftkitError,
    ModelError,
    StorageError,
    TrainingError,
    named,
)
from graftkit.flow.answering.reload import reload
from graftkit.flow.base_files.open_model import load_tokenizer
from graftkit.flow.config_memory import ConfigModel
from graftkit.flow.exports.assets import ExpectedAssets
from graftkit.flow.exports.probes import Probes
from graftkit.flow.folders.export_configuration import check_configurations
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.folders.listed_files import check_listed, is_changed
from graftkit.flow.folders.metrics import METRICS, missing_steps, read_metrics
from graftkit.flow.folders.refused_files import check_tensor_header, refuse_bad_files, refuse_embedded_adapter
from graftkit.flow.folders.run_adapter import read_adapter
from graftkit.flow.folders.vocabulary_file import read_change
from graftkit.flow.reporting.read_run import read_run
from graftkit.flow.verify import check_files
from graftkit.interfaces.file_state import FileStates
from graftkit.interfaces.regular_file import read_regular
from graftkit.interfaces.temporary import temporary_folder
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.interfaces.vocabulary_limits import MOST_IDS, MOST_PARTS
from graftkit.model.grow import grow
from graftkit.model.skeleton import build_config
from graftkit.model.twin import build_twin
from graftkit.report.run_manifest import RunManifest
from graftkit.store.array_file import map_arrays
from graftkit.store.file_hashes import file_facts, sha256_of
from graftkit.store.files import write_text
from graftkit.store.token_store import TokenStore
from graftkit.testing import TINY_CONFIG, tiny_model_folder, tiny_tokenizer_files
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.testing.records import read_samples
from graftkit.training.checkpoint import damaged_checkpoints, latest_checkpoint, read_checkpoint, write_checkpoint
from graftkit_models.huggingface import HuggingFaceFolder, HuggingFaceSource
from graftkit_models.quantized.matrix import FileTensors
from graftkit_sentencepiece.backend import SentencePieceBackend
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from safetensors.torch import save_file
from sentencepiece_models import BOTCHAN, model

READERS: dict[str, Callable[[Path], object]] = {
    "config.json": lambda folder: HuggingFaceSource().open(str(folder)),
    "model.safetensors.index.json": lambda folder: _open_with_config(folder),
    "tokenizer.json": lambda folder: HuggingFaceBackend().load(folder),
    "vocab.json": lambda folder: HuggingFaceBackend().load(folder),
    "tokenizer.model": lambda folder: SentencePieceBackend().load(folder),
    "graftkit.json": lambda folder: ExportManifest.read(folder, ()),
    "metrics.jsonl": lambda folder: read_metrics(folder / "metrics.jsonl"),
    "train.safetensors": lambda folder: TokenStore.load(folder / "train.safetensors"),
    "adapter_model.safetensors": lambda folder: check_tensor_header(folder / "adapter_model.safetensors"),
    "probes.safetensors": lambda folder: Probes.load(folder / "probes.safetensors"),
}
"""Readers of files from strangers, by the file that each reads."""


@pytest.fixture
def clock() -> Iterator[None]:
    """Ends a test that waits for a pipe's other end."""

    def stop(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _open_with_config(folder: Path) -> object:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return HuggingFaceSource().open(str(folder))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("odd", ["pipe", "/dev/zero", "/proc/self/mem", "folder"])
@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_read(tmp_path: Path, name: str, odd: str) -> None:
    path = tmp_path / name
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "folder":
        path.mkdir()
    else:
        path.symlink_to(odd)
    with pytest.raises(GraftkitError) as caught:
        READERS[name](tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.usefixtures("clock")
def test_a_pipe_in_a_runs_folder_is_no_manifest_and_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    assert RunManifest.read(tmp_path) is None
    write_checkpoint(tmp_path / "checkpoints", 1, {"a": torch.zeros(1)})
    for name in ("state.safetensors", "checkpoint.json"):
        (tmp_path / "checkpoints" / "step-00000001" / name).unlink()
        os.mkfifo(tmp_path / "checkpoints" / "step-00000001" / name)
        assert latest_checkpoint(tmp_path / "checkpoints") is None


def test_a_file_that_the_system_refuses_to_read_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").symlink_to("/proc/self/mem")
    with pytest.raises(ModelError, match="can't be read: this is a link to another file outside"):
        HuggingFaceBackend().load(tmp_path)
    monkeypatch.setattr("graftkit.interfaces.regular_file.check_own_file", lambda path: None)
    with pytest.raises(ModelError, match="can't be read: Input/output error"):
        HuggingFaceBackend().load(tmp_path)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 9)
    assert read_regular(tmp_path / "a", 9) == b"x" * 9
    with pytest.raises(OSError, match="larger"):
        read_regular(tmp_path / "a", 8)


def test_no_tokenizer_is_made_of_a_file_that_is_linked_elsewhere(tmp_path: Path) -> None:
    """What it holds would be exported as a chat template, or as tokens."""
    for backend, name, vocabulary in (
        (SentencePieceBackend(), "chat_template.jinja", {"tokenizer.model": model(BOTCHAN).read_bytes()}),
        (SentencePieceBackend(), "tokenizer.model", {}),
        (HuggingFaceBackend(), "additional_chat_templates/tools.jinja", tiny_tokenizer_files()),
        (HuggingFaceBackend(), "vocab.txt", {}),
    ):
        folder = tmp_path / f"with-{Path(name).stem}"
        (folder / name).parent.mkdir(parents=True)
        for file, data in vocabulary.items():
            (folder / file).write_bytes(data)
        (tmp_path / "secret").write_bytes(model(BOTCHAN).read_bytes() if name == "tokenizer.model" else b"my secret")
        (folder / name).symlink_to(tmp_path / "secret")
        with pytest.raises(ModelError, match="can't be read: this is a link to another file outside"):
            backend.load(folder)


@pytest.mark.parametrize("reader", ["tokenizer", "base model"])
def test_a_folder_of_chat_templates_may_be_linked_as_files_may(tmp_path: Path, reader: str) -> None:
    folder, elsewhere, named = tmp_path / "model", tmp_path / "secrets", tmp_path / "x" / "additional_chat_templates"
    copied = tmp_path / "copied"
    for place in (elsewhere, named, folder / "here", copied):
        place.mkdir(parents=True)
        (place / "tools.jinja").write_text("{{ messages }}")
    for name, data in tiny_tokenizer_files().items():
        (folder / name).write_bytes(data)

    def read() -> None:
        if reader == "tokenizer":
            assert HuggingFaceBackend().load(folder).chat_templates["tools"] == "{{ messages }}"
        else:
            HuggingFaceFolder("model", folder, {}, FileTensors({}, {}), {}, FileStates({})).save_tokenizer(copied)

    linked = folder / "additional_chat_templates"
    for target in (named, folder / "here"):
        linked.symlink_to(target)
        read()
        linked.unlink()
    linked.symlink_to(elsewhere)
    with pytest.raises(ModelError, match="can't be read: this is a link to another folder outside"):
        read()
    linked.unlink()
    linked.mkdir()
    for number in range(1001):
        (linked / f"{number}.jinja").touch()
    with pytest.raises(ModelError, match="over 1,000 chat templates"):
        read()


def test_all_chat_templates_of_a_folder_together_are_bounded(tmp_path: Path) -> None:
    for name, data in tiny_tokenizer_files().items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "additional_chat_templates").mkdir()
    for number in range(40):
        (tmp_path / "additional_chat_templates" / f"{number}.jinja").touch()
        os.truncate(tmp_path / "additional_chat_templates" / f"{number}.jinja", 32 << 20)
    with pytest.raises(ModelError, match="files are larger than 96 MB"):
        HuggingFaceBackend().load(tmp_path)


def test_a_file_of_gigabytes_is_read_as_no_settings(tmp_path: Path) -> None:
    """It takes no room on the disk: whoever read it whole would run out of memory."""
    for name in ("manifest.json", "step-00000001/checkpoint.json", "vocabulary.json", "adapter/adapter.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)
    assert latest_checkpoint(tmp_path) is None
    with pytest.raises(FolderError, match=r"vocabulary\.json: it can't be read: it is larger than 128 MB"):
        read_change(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(FolderError, match=r"manifest\.json is damaged: .* larger than 64 MB"):
        RunManifest.read(tmp_path)


def test_the_vocabulary_of_the_most_new_tokens_is_read_whole(tmp_path: Path) -> None:
    """400,000 new tokens of seven parts each are 75 MB, as they are written; here the room between them is the most."""
    change = VocabularyChange("extended", 2, (1,), ((0,),), None)
    (tmp_path / "vocabulary.json").write_text(json.dumps(change.to_json()) + " " * (75 << 20))
    assert read_change(tmp_path) == change


def test_errors_without_a_place_get_one_and_others_keep_theirs() -> None:
    for own, expected in (("", "folder"), ("a file", "a file")):
        with pytest.raises(ModelError) as caught, named("folder"):
            raise ModelError("no", where=own)
        assert caught.value.where == expected


def test_an_unknown_pattern_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "x.tiktoken").write_text("YQ== 0\n")
    (tmp_path / "x.tiktoken.json").write_text('{"pattern": "nothing"}')
    with pytest.raises(GraftkitError, match="x.tiktoken"):
        HuggingFaceBackend().load(tmp_path)


@pytest.mark.parametrize("merges", [None, [["a"]], [[1, 2, 3]], [7], {"a": "b"}])
def test_merges_of_a_model_that_has_none_are_not_looked_at(tmp_path: Path, merges: Any) -> None:
    for name, data in tiny_tokenizer_files().items():
        (tmp_path / name).write_bytes(data)
    spec = json.loads((tmp_path / "tokenizer.json").read_bytes())
    spec["model"] = {"type": "WordLevel", "unk_token": "a", "vocab": spec["model"]["vocab"], "merges": merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    assert HuggingFaceBackend().load(tmp_path).encode_batch(["a"])


def test_a_checkpoint_is_judged_whatever_its_facts_are(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, {"a": torch.zeros(1)})
    (path / "checkpoint.json").write_text("[" * 100_000)
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 40])
def test_a_state_that_can_not_be_read_is_told_with_its_file(tmp_path: Path, data: bytes) -> None:
    path = write_checkpoint(tmp_path, 1, {"a": torch.zeros(1)})
    (path / "state.safetensors").write_bytes(data)
    with pytest.raises(TrainingError, match=r"state\.safetensors.*can't be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("levels", [80, 250, 900])
@pytest.mark.parametrize("place", ["tools", "calls", "arguments", "a column"])
def test_records_are_read_or_refused_however_deep_they_are(
    tiny_model: Path, tmp_path: Path, place: str, levels: int
) -> None:
    """Python reads a thousand levels, and what walks through them takes more than one of its own for each."""
    deep = '{"a":' * levels + "1" + "}" * levels
    arguments = json.dumps(deep) if place == "arguments" else deep if place == "calls" else "{}"
    call = '{"function": {"name": "f", "arguments": ' + arguments + "}}"
    tool = '{"type": "function", "function": {"name": "f", "parameters": ' + (deep if place == "tools" else "{}") + "}}"
    turns = '[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "tool_calls": [' + call + "]}]"
    line = f'{{"messages": {turns}, "tools": [{tool}], "more": {deep if place == "a column" else 1}}}\n'
    (tmp_path / "records.jsonl").write_text(line * 10)
    (tmp_path / "chat.jinja").write_text("{{ tools | tojson }}{{ messages | tojson }}")
    data = {"train": str(tmp_path / "records.jsonl"), "chat_template": str(tmp_path / "chat.jinja")}
    try:
        graftkit.plan({"model": str(tiny_model), "data": data})
    except GraftkitError as error:
        assert levels > 200 or "nested" not in str(error)
        assert place == "arguments" or levels < 200 or "nested over 200 levels" in str(error)


def test_a_call_of_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "\ud800", "arguments": {}}}]}
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "x"}, call]}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*half of a surrogate pair"):
        read_samples(tmp_path / "a.jsonl")


def test_a_full_disk_of_temporary_files_is_told(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = HuggingFaceSource().open(str(tiny_model))

    def full(*arguments: Any, **options: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="TMPDIR"):
        patch.setattr(tempfile, "TemporaryDirectory", full)
        load_tokenizer(files, HuggingFaceBackend())
    with pytest.raises(StorageError, match=r"No space left on device\n.*TMPDIR"), temporary_folder():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="odd"), temporary_folder():
        raise OSError(errno.EIO, "odd")

    def full_for(data: bytes, file: Any = None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError) as caught, temporary_folder() as folder:
        patch.setattr("os.fsync", full_for)
        write_text(folder / "a.txt", "text")  # which names --out of a file that lies anywhere else
    assert "TMPDIR" in caught.value.hint and "out=" not in caught.value.hint


def _assets(**changed: Any) -> str:
    assets = ExpectedAssets(["a"], [[1]], [{"role": "user", "content": "b"}], "b", "2026-01-31", {"top_k": 3}, [2])
    return json.dumps({**json.loads(assets.to_json()), **changed})


def test_assets_are_read_as_they_were_written() -> None:
    text = _assets()
    assert ExpectedAssets.from_json(text).to_json() == text


PROBE = {"ids.0": torch.tensor([1, 2, 3]), "positions.0": torch.tensor([2]), "logits.0": torch.zeros(1, 5)}
DAMAGED: dict[str, dict[str, Any]] = {
    "no logits": {"logits.0": None},
    "an id beyond the vocabulary": {"ids.0": torch.tensor([1, 5])},
    "a negative id": {"ids.0": torch.tensor([-1, 2])},
    "no id": {"ids.0": torch.zeros(0, dtype=torch.int64)},
    "ids that are no whole numbers": {"ids.0": torch.tensor([1.5, 2.0])},
    "a matrix of ids": {"ids.0": torch.zeros(2, 2, dtype=torch.int64)},
    "a position beyond the end": {"positions.0": torch.tensor([3])},
    "more positions than logits": {"positions.0": torch.tensor([1, 2])},
    "a vector of logits": {"logits.0": torch.zeros(5)},
    "assets that are no JSON": {"assets": "{"},
    "assets that lack a key": {"assets": "{}"},
    "a day that is none": {"assets": _assets(today="31.1.")},
    "texts that are none": {"assets": _assets(texts=[3])},
    "fewer tokens than texts": {"assets": _assets(tokens=[])},
    "a conversation of numbers": {"assets": _assets(conversation=[3])},
    "assets nested deeply": {"assets": _assets(generation=None)[:-1] + ', "x": ' + "[" * 100_000},
    "a coverage that is no number": {"coverage.longest": "x"},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_probes_are_told_with_their_file(tmp_path: Path, change: dict[str, Any]) -> None:
    metadata = {name: value for name, value in change.items() if isinstance(value, str)}
    tensors = {**PROBE, **{name: value for name, value in change.items() if name not in metadata}}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "p", metadata)
    with pytest.raises(FolderError, match="it is damaged") as caught:
        Probes.load(tmp_path / "p")
    assert str(tmp_path / "p") in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("data", [b"", b"\x02\0\0\0\0\0\0\0[]", b"{}" * 40])
def test_probes_that_are_no_tensors_are_told_with_their_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(FolderError, match="it is damaged"):
        Probes.load(tmp_path / "p")


@pytest.mark.parametrize("size", [100, 2**31 - 1])
@pytest.mark.parametrize("kept", [None, {n: n for n in range(96)}])
def test_no_memory_is_taken_for_rows_that_nobody_has(size: int, kept: dict[int, int] | None) -> None:
    network = build_twin({**TINY_CONFIG, "vocab_size": 96})
    rows = network.get_input_embeddings().num_embeddings if kept is None else len(kept)
    change = VocabularyChange("extended", size, (96, 97), ((1,), (2,)), kept)
    with pytest.raises(ModelError, match=f"only {rows + 2} are new or the base model's"):
        grow(network, change, lambda weight, role: torch.zeros(2, weight.shape[1]))


@pytest.mark.parametrize("count", ["100001", "1e308", "1e999", str(2**63)])
def test_a_tekken_file_asks_for_no_more_special_tokens_than_there_can_be(tmp_path: Path, count: str) -> None:
    config = f'{{"pattern": ".", "default_vocab_size": 9, "default_num_special_tokens": {count}}}'
    (tmp_path / "tekken.json").write_text(f'{{"config": {config}, "vocab": []}}')
    with pytest.raises(ModelError, match="no tekken.json"):
        HuggingFaceBackend().load(tmp_path)


@pytest.mark.parametrize("size", [10**400, 2**31, -1])
def test_no_vocabulary_is_larger_than_any_can_be(size: int) -> None:
    with pytest.raises(ValueError, match="at most"):
        VocabularyChange.from_json({"kind": "extended", "size": size, "ids": [], "parts": [], "kept": None})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ids": [4, 4]}, "not ascending"),
        ({"ids": [5, 4]}, "not ascending"),
        ({"size": 6.5}, "its size a whole number"),
        ({"size": True, "ids": [], "parts": []}, "its size a whole number"),
        ({"kind": "moved"}, "its kind is one of extended, trained, replaced"),
        ({"kind": []}, "its kind is one of"),
        ({"ids": [0] * (MOST_IDS + 1)}, f"over {MOST_IDS:,} ids"),
        ({"parts": [[]] * (MOST_IDS + 1)}, f"over {MOST_IDS:,} ids"),
        ({"parts": [[1] * (MOST_PARTS // 2 + 1)] * 2}, f"stood for over {MOST_PARTS:,} ids"),
        ({"kept": [[0, 0]] * (MOST_IDS + 1)}, f"over {MOST_IDS:,} ids"),
    ],
)
def test_a_vocabularys_change_is_read_only_as_it_is_written(changed: dict[str, Any], said: str) -> None:
    """With an id twice, the row of one token would be loaded as another's."""
    whole = {"kind": "extended", "size": 6, "ids": [4, 5], "parts": [[1], [2]], "kept": None}
    assert VocabularyChange.from_json(whole).ids == (4, 5)
    with pytest.raises(ValueError, match=said):
        VocabularyChange.from_json({**whole, **changed})


def test_steps_that_nobody_took_are_not_counted_one_by_one(clock: None) -> None:
    """A manifest says how many there were; a stranger's may say any number."""
    lines = [{"step": step} for step in range(1, 40_001)]
    assert missing_steps(lines, 40_000) == ""
    assert missing_steps(lines, 10**300).endswith("of step 40001, 40002, 40003, 40004, 40005 ...")
    assert missing_steps(lines[:-1], 40_000).endswith("of step 40000")


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_line_of_metrics_with_a_number_that_no_step_has_is_left_out(tmp_path: Path, value: str) -> None:
    step = (
        '{"step": 1, "loss": %s, "tokens": 1, "loss_tokens": 1, "seconds": 1, "learning_rate": 1, "gradient_norm": 1}'
    )
    evaluation = '{"step": 1, "holdout_loss": %s, "examples": 1, "seconds": 1}'
    for line in (step, evaluation):
        (tmp_path / METRICS).write_text(f"{line % value}\n{line % '2.0'}\n")
        found = read_metrics(tmp_path / METRICS)
        assert [*(one["loss"] for one in found.steps), *found.holdout_losses.values()] == [2.0]


STEP = {"loss": 2.5, "tokens": 100, "loss_tokens": 9, "seconds": 0.5, "learning_rate": 1e-3, "gradient_norm": 1.0}


def test_lines_of_many_steps_take_little_memory(tmp_path: Path) -> None:
    """A run of a million steps was 1.7 GB to compare, of which no key and no number was kept once."""
    with (tmp_path / METRICS).open("w") as file:
        for step in range(1, 20_001):
            file.write(json.dumps({"step": step, **STEP}) + "\n")
    tracemalloc.start()
    found = read_metrics(tmp_path / METRICS)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20_000 * 100 and found.steps[19_999] == {"step": 20_000, **STEP}


def test_lines_in_another_order_are_those_of_their_steps(tmp_path: Path) -> None:
    lines = [{"step": step, **STEP, "loss": loss} for step, loss in ((2, 1.0), (3, 2.0), (1, 3.0), (2, 4.0))]
    lines[0] |= {"metrics": {"margin": 0.5}}
    long = {"step": 4, **STEP, "beside": "x" * (1 << 20)}
    text = "".join(json.dumps(line) + "\n" for line in [*lines, long, {"step": 5, **STEP}])
    (tmp_path / METRICS).write_text(text + json.dumps({"step": 6, **STEP}))
    found = read_metrics(tmp_path / METRICS)
    assert [*found.steps] == [lines[2], lines[0], lines[1], {"step": 5, **STEP}]
    assert found.steps[1:] == [lines[0], lines[1], {"step": 5, **STEP}] and found.steps[-1]["step"] == 5


@pytest.mark.parametrize(
    "worst",
    [
        '{"worst": [{"where": "a:1", "loss": 1.0, "loss_tokens": 1e999, "texts": []}]}',
        '{"worst": [{"where": "a:1", "loss": 1%s, "loss_tokens": 1, "texts": []}]}' % ("0" * 400),
        '{"worst": [], "examples": 1e999}',
    ],
)
def test_numbers_that_no_record_has_are_damage_that_a_report_tells(tmp_path: Path, worst: str) -> None:
    (tmp_path / "manifest.json").write_text('{"graftkit": "1", "status": "finished"}')
    (tmp_path / "holdout-worst.json").write_text(worst)
    assert read_run(tmp_path).damage == ["holdout-worst.json is damaged"]


ENDLESS = Path("/proc/self/pagemap")
"""Terabytes that the kernel makes as they are read, whose size is 0."""


@pytest.mark.skipif(not ENDLESS.is_file(), reason="Linux has it")
def test_a_link_to_what_has_no_end_is_no_regular_file(tmp_path: Path, clock: None) -> None:
    (tmp_path / "manifest.json").symlink_to(ENDLESS)
    for read in (read_regular, sha256_of):
        with pytest.raises(OSError, match="no regular file"):
            read(tmp_path / "manifest.json")
    assert RunManifest.read(tmp_path) is None


def test_a_listed_file_that_can_not_be_looked_at_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without the right to search it, which a superuser's tests can't have."""
    (tmp_path / "weights").write_text("3")
    files = file_facts(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(Path, "lstat", refused)
    with pytest.raises(FolderError, match="the file weights can't be read: Permission denied"):
        check_listed(tmp_path, files)
    assert is_changed(tmp_path, RunManifest(graftkit="", status="finished", artifacts=files), "weights")
    with pytest.raises(FolderError, match="can't be opened: Permission denied"):
        graftkit.verify(tmp_path)


@pytest.mark.usefixtures("clock")
def test_a_listed_file_that_has_become_a_terabyte_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("3")
    files = file_facts(tmp_path)
    (tmp_path / "graftkit.json").write_text(json.dumps({"files": files}))
    assert check_files(tmp_path) == ["graftkit.json"]
    os.truncate(tmp_path / "weights", 1 << 40)
    with pytest.raises(FolderError, match="the file weights is changed"):
        check_listed(tmp_path, files)
    with pytest.raises(ExportError, match="the file weights is changed"):
        check_files(tmp_path)
    os.truncate(tmp_path / "weights", 1)
    (tmp_path / "more").touch()
    os.truncate(tmp_path / "more", 1 << 40)
    with pytest.raises(ExportError, match="the file more is new"):
        check_files(tmp_path)


def test_an_export_has_its_weights_in_shards_or_in_one_file(tmp_path: Path) -> None:
    """transformers loads the one, vLLM the other: what is proved of one says nothing of the other."""
    save_file({"weight": torch.zeros(1)}, tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"weight": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse_bad_files(tmp_path)
    save_file({"weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match="model.safetensors lies beside this index of shards"):
        refuse_bad_files(tmp_path)
    index = {"weight_map": {"weight": "model.safetensors"}}  # as MLX writes one beside a single file
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse_bad_files(tmp_path)


def test_no_adapter_lies_beside_a_whole_model(tmp_path: Path) -> None:
    """transformers built what its configuration asked for, 26 GB, and computed the model with it, unasked."""
    model = tiny_model_folder(tmp_path / "model")
    config = {"peft_type": "LORA", "r": 100_000_000, "target_modules": ["q_proj"]}
    refuse_embedded_adapter(model)
    (model / "adapter_config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(1)}, model / "adapter_model.safetensors")
    with pytest.raises(ExportError, match="an adapter lies beside a whole model"):
        refuse_embedded_adapter(tmp_path)
    with pytest.raises(ModelError, match="an adapter lies beside the model") as caught:
        HuggingFaceSource().open(str(model))
    assert caught.value.where == str(model / "adapter_config.json")
    edited = json.loads((model / "config.json").read_text()) | {"transformers_weights": "other.safetensors"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(edited))
    save_file({"weight": torch.zeros(1)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(ModelError, match="'transformers_weights' names the file"):
        HuggingFaceSource().open(str(tmp_path / "other"))
    (model / "graftkit.json").write_text(json.dumps({"files": file_facts(model)}))
    for use in (reload, check_files):
        with pytest.raises(ExportError, match="an adapter lies beside a whole model"):
            use(model)


def test_a_configuration_does_not_say_in_what_form_results_are_returned() -> None:
    """Whoever calls the model says it: a tuple in the place of named results ended `generate`."""
    odd = {"return_dict": False, "output_hidden_states": True, "output_attentions": True}
    built = build_config({**TINY_CONFIG, **odd})
    assert built.return_dict is True and not built.output_hidden_states and not built.output_attentions


@pytest.mark.parametrize("name", ["../weights", "a/../../weights", "/etc/hostname", "..\\weights"])
def test_a_list_of_files_names_none_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    """What is hashed may be as long as anything that its user can read."""
    (tmp_path / "weights").write_text("")
    (tmp_path / "export").mkdir()
    with pytest.raises(FolderError, match="which leads out of it"):
        check_listed(tmp_path / "export", {name: {"sha256": sha256_of(tmp_path / "weights"), "bytes": 0}})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1,000,000"),
        ({"num_hidden_layers": 900}, "num_hidden_layers is 900"),
        ({"hidden_size": 10**6}, "hidden_size is 1,000,000"),
        ({"intermediate_size": 1 << 24}, "asks for 6,442,.* weights, of which 81,920 numbers are stored"),
        ({"vocab_size": 1 << 24}, "weights, of which 81,920 numbers are stored"),
        ({"head_dim": 1 << 24}, "weights, of which 81,920 numbers are stored"),
    ],
)
def test_a_configuration_that_its_weights_do_not_explain_is_built_by_no_library(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    """transformers makes all that it says before it looks at the weights: 16 GB and minutes for a single number."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({f"layers.{n}.weight": torch.zeros(160, 64) for n in range(8)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG))
    check_configurations(tmp_path)
    (folder / "config.json").write_text(json.dumps({**TINY_CONFIG, **changed}))
    with pytest.raises(ModelError, match=said) as caught:
        check_configurations(tmp_path)
    assert caught.value.where == str(folder / "config.json")


def test_a_configuration_with_a_number_that_json_lacks_is_built(tmp_path: Path) -> None:
    """Merged exports of Mamba 2, Bamba and Falcon-H1 failed their proof: `time_step_limit` ends at infinity."""
    folder = tiny_model_folder(tmp_path, **ARCHITECTURES["mamba2"])
    written = (folder / "config.json").read_text()
    limit = {"time_step_limit": [0.0, {"__float__": "Infinity"}]}
    (folder / "config.json").write_text(json.dumps({**json.loads(written), **limit}))
    check_configurations(folder)
    assert ConfigModel.read(str(folder)).tensors


@pytest.mark.parametrize("kind", [None, "of-another-program", ["llama"]])
def test_a_configuration_of_another_program_is_left_to_it(tmp_path: Path, kind: Any) -> None:
    save_file({"weight": torch.zeros(160, 64)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 1 << 22}))
    check_configurations(tmp_path)


def test_a_checkpoint_that_the_system_refuses_to_read_is_not_called_damaged(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, {"a": torch.zeros(1)})
    (path / "checkpoint.json").unlink()
    assert damaged_checkpoints(tmp_path) == {path.name: "is damaged"}
    (path / "checkpoint.json").symlink_to("checkpoint.json")
    assert damaged_checkpoints(tmp_path) == {path.name: "can't be read (Too many levels of symbolic links)"}


@pytest.mark.parametrize("read", [RunManifest.read, read_change, read_adapter])
@pytest.mark.parametrize("refused", ["loop", "long"])
def test_what_the_system_refuses_to_open_is_told_in_its_words(tmp_path: Path, read: Any, refused: str) -> None:
    """A file that can't be read is not damaged: whoever puts another in its place loses it."""
    run = tmp_path / ("n" * 300 if refused == "long" else "run")
    if refused == "loop":
        (run / "adapter").mkdir(parents=True)
        for name in ("manifest.json", "vocabulary.json", "adapter/adapter.json"):
            (run / name).symlink_to(Path(name).name)
    with pytest.raises(FolderError, match=r"can't be read: (Too many levels of symbolic links|File name too long)"):
        read(run)
    (run.parent / "loop").symlink_to("loop")
    for source in (run if refused == "long" else run.parent / "loop", run.parent / "loop" / "x"):
        for ask in (graftkit.verify, graftkit.export, graftkit.generate, graftkit.compare):
            arguments = {graftkit.export: (source, "merged"), graftkit.compare: ([source, source],)}
            with pytest.raises(FolderError, match="can't be opened: (Too many levels|File name too long)"):
                ask(*arguments.get(ask, (source, "hi")[: 1 + (ask is graftkit.generate)]))


def test_a_manifest_that_can_not_be_written_again_is_damaged(tmp_path: Path) -> None:
    deep = f'{{"graftkit": "1", "status": "interrupted", "extra": {"[" * 600 + "]" * 600}}}'
    with pytest.raises(FolderError, match="nested too deeply"):
        RunManifest.from_json(json.loads(deep))
    (tmp_path / "manifest.json").write_text(deep)
    (tmp_path / "tokens").mkdir()
    with pytest.raises(FolderError, match="nested over 200 levels"):
        RunManifest.read(tmp_path)


@pytest.mark.parametrize("source", ["\ud834", "{{ '\\ud834' }}"])
def test_a_chat_template_writes_no_half_of_a_surrogate_pair(source: str) -> None:
    with pytest.raises(DataError, match="surrogate pair"):
        ChatTemplate(source, {}).render([{"role": "user", "content": "a"}], "a row")


def _tokenizer(folder: Path, **changed: Any) -> dict[str, Any]:
    for name, data in tiny_tokenizer_files().items():
        (folder / name).write_bytes(data)
    spec: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes()) | changed
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return spec


@pytest.mark.parametrize("shape", [[10, True], [True, 10], [10, 1.0], [-10, -1]])
def test_stored_tokens_whose_shape_is_no_number_are_damaged(tmp_path: Path, shape: list[Any]) -> None:
    """`true` is an integer of Python's, and none of numpy's."""
    header = {"ids": {"dtype": "U32", "shape": shape, "data_offsets": [0, 40]}}
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(40))
    with pytest.raises(StorageError, match="do not fit together"):
        map_arrays(tmp_path / "a.safetensors", {"ids": np.dtype(np.uint32)})


@pytest.mark.parametrize("part", ["pre_tokenizer", "decoder"])
def test_steps_that_make_a_text_ever_longer_are_refused(tmp_path: Path, part: str) -> None:
    steps = {
        "pre_tokenizer": ("pretokenizers", {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}),
        "decoder": ("decoders", {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"}),
    }
    name, step = steps[part]
    _tokenizer(tmp_path, **{part: {"type": "Sequence", name: [step] * 12}})
    with pytest.raises(ModelError, match="times as long"):
        HuggingFaceBackend().load(tmp_path)


@pytest.mark.parametrize(
    ("part", "step", "message"),
    [
        ("decoder", {"type": {"a": 1}, "prefix": "##", "cleanup": True}, "type that is no text"),
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "pieces of no length"),
    ],
)
def test_a_step_that_the_library_reads_otherwise_or_fails_at_is_refused(
    tmp_path: Path, part: str, step: dict[str, Any], message: str
) -> None:
    _tokenizer(tmp_path, **{part: step})
    with pytest.raises(ModelError, match=message):
        HuggingFaceBackend().load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_file_beside_a_vocabulary_with_half_of_a_surrogate_pair_is_refused(tmp_path: Path, name: str) -> None:
    _tokenizer(tmp_path)
    (tmp_path / name).write_text('{"eos_token": "\\ud800", "bos_token": "\\ud83d\\ude00"}')
    with pytest.raises(ModelError, match="lone surrogate"):
        HuggingFaceBackend().load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    with pytest.raises(ModelError, match="lone surrogate"):
        HuggingFaceBackend().load(tmp_path)
    (tmp_path / name).write_text('{"unk_token": "[UNK]", "note": "\\\\ud800 \\ud83d\\ude00"}')
    assert HuggingFaceBackend().load(tmp_path)


def test_a_pattern_that_is_no_text_is_told_with_its_file(tmp_path: Path) -> None:
    config = {"pattern": {"a": 1}, "default_num_special_tokens": 3, "default_vocab_size": 4}
    vocab = [{"rank": 0, "token_bytes": "YQ==", "token_str": "a"}]
    (tmp_path / "tekken.json").write_text(json.dumps({"config": config, "vocab": vocab}))
    with pytest.raises(GraftkitError, match=r"tekken\.json"):
        HuggingFaceBackend().load(tmp_path)


def test_an_unknown_token_of_a_model_that_has_none_is_not_looked_at(tmp_path: Path) -> None:
    spec = _tokenizer(tmp_path)
    pieces = [[piece, -1.0] for piece in spec["model"]["vocab"]]
    _tokenizer(tmp_path, model={"type": "Unigram", "unk_id": 0, "vocab": pieces, "unk_token": {"a": 1}})
    assert HuggingFaceBackend().load(tmp_path).encode_batch(["a"])
