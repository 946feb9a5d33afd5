"""What every exporter promises."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

import pytest
import torch

from graftkit.errors import ExportError
from graftkit.flow.exports.asset_differences import differences
from graftkit.flow.exports.assets import expected_assets
from graftkit.flow.exports.check_export import check_it_reads, compare_found
from graftkit.flow.exports.probes import PROBES_FILE, Probes, allowed_difference, compare
from graftkit.flow.exports.proof import prove
from graftkit.flow.exports.rounding import compare_rounding, quantizes, read_logits, reading_of
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST, MAX_TOLERANCE, OF_THE_MANIFEST
from graftkit.interfaces.export_card import CardExporter, CardRequest, ExportCard
from graftkit.interfaces.exporter import (
    AssetsExporter,
    Exporter,
    MergeBase,
    MergingExporter,
    ProofRequest,
)
from graftkit.interfaces.temporary import temporary_folder
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ChangeKind
from graftkit.model.adapt import AdaptedModel
from graftkit.model.merge import on_base
from graftkit.store.file_hashes import sha256_of
from graftkit.testing.contracts.base import Contract, choose
from graftkit.testing.contracts.trained import Everything, TinyTrained, logits, train_tiny
from graftkit.testing.tiny import TINY_SHAPES

__all__ = ["ExporterContract"]


class ExporterContract(Contract):
    """Exports tiny trained models and loads what was written.

    Example:
        >>> class TestMerged(ExporterContract):
        ...     provider = "merged"
    """

    kind = "exporter"

    @pytest.fixture
    def trained(self, tmp_path: Path) -> TinyTrained:
        """A tiny llama with a trained lora."""
        return self.train(tmp_path)

    settings: ClassVar[Mapping[str, Any]] = {}
    """What `train_tiny` is to make, where the format has a form of nothing simpler."""

    def train(self, folder: Path, **settings: Any) -> TinyTrained:
        """Makes a tiny trained model; where the exporter refuses it, the test is skipped for its reason."""
        trained = train_tiny(self.host(), folder, **{**self.settings, **settings})
        reason = self.refusal(trained)
        if reason:
            pytest.skip(reason)
        return trained

    def refusal(self, trained: TinyTrained) -> str | None:
        """Asks as a run does: of what is known before a weight is loaded."""
        __tracebackhide__ = True
        try:
            answer: str | None = self.make().refusal(trained.planned())
        except AttributeError as error:
            pytest.fail(f"refusal() is asked before a weight is loaded, of a PlannedModel: {error}")
        return answer

    def export(self, trained: TinyTrained, folder: Path) -> Mapping[str, Any]:
        """Exports into a new folder."""
        folder.mkdir(parents=True)
        facts: Mapping[str, Any] = self.make().export(trained.model, folder)
        return facts

    def test_it_refuses_with_a_sentence_and_not_everything(self, tmp_path: Path) -> None:
        """None means yes; at least one of the tiny models has the format's form."""
        answers = []
        for shape in TINY_SHAPES:
            trained = train_tiny(self.host(), tmp_path / shape, **{**self.settings, "shape": shape})
            answer = self.refusal(trained)
            said = answer is None or (isinstance(answer, str) and len(answer.split()) > 2)
            assert said, f"refusal() returned {answer!r} for {shape}: a sentence that says why, or None"
            answers.append(answer)
        assert None in answers, f"refusal() refuses every tiny model: {answers[0]}"

    @pytest.mark.parametrize("shape", TINY_SHAPES)
    def test_what_it_loads_again_is_what_was_trained(self, shape: str, tmp_path: Path) -> None:
        """The program that the format is for computes the trained model's logits."""
        self._check_loads(self.train(tmp_path, shape=shape), tmp_path / "export")

    @pytest.mark.parametrize("quantizer", ["none", "nf4"])
    def test_a_model_adapted_in_some_layers_is_what_was_trained(self, quantizer: str, tmp_path: Path) -> None:
        """Layers of one name may be adapted in one block and not in another; weights may be quantized."""
        self._check_loads(self.train(tmp_path, quantizer=quantizer, some=True), tmp_path / "export")

    @pytest.mark.parametrize("shape", ["llama", "llama-untied"])
    @pytest.mark.parametrize("vocabulary", ["extended", "trained"])
    def test_a_model_with_another_vocabulary_is_exported_rightly_or_refused(
        self, vocabulary: str, shape: str, tmp_path: Path
    ) -> None:
        """With new rows in its embeddings, tied or not; with tokens of the base under other ids, too."""
        trained = train_tiny(self.host(), tmp_path, shape=shape, vocabulary=cast(ChangeKind, vocabulary))
        if self.refusal(trained) is None:
            self._check_loads(trained, tmp_path / "export")

    def test_an_adapter_of_any_method_is_exported_rightly_or_refused(self, tmp_path: Path) -> None:
        """One that PEFT has no form of."""
        trained = train_tiny(self.host(), tmp_path, **{**self.settings, "adapter": Everything()})
        if self.refusal(trained) is None:
            self._check_loads(trained, tmp_path / "export")

    @pytest.mark.parametrize("onto", ["original", "requantized"])
    def test_it_merges_onto_what_its_merged_tensors_are_of(self, onto: MergeBase, tmp_path: Path) -> None:
        """Where the exporter says what it merges onto: core gives it the model on that base, and it writes this."""
        exporter = self.make()
        if not isinstance(exporter, MergingExporter):
            pytest.skip("it does not say what it merges onto")
        asked, dtype = exporter.merge_onto, exporter.merge_dtype
        assert asked in (*get_args(MergeBase), "auto"), f"merge_onto is {asked!r}: a MergeBase, or 'auto'"
        assert dtype in ("float32", "bfloat16", "float16"), f"merge_dtype is {dtype!r}: a type of floating point"
        trained = self.train(tmp_path, quantizer="nf4")
        computed = trained.probes()
        with on_base(trained.model.network, onto, trained.originals):
            self._check_loads(trained, tmp_path / "export")
        assert all(map(torch.equal, computed.logits, trained.probes().logits))

    def test_a_fresh_process_proves_it(self, tmp_path: Path) -> None:
        """As a run has it proved: a process that shares nothing with this one but the files."""
        trained, folder = self.train(tmp_path, quantizer="nf4"), tmp_path / "export"
        manifest = {**trained.manifest(), **self.export(trained, folder)}
        manifest |= {"exporter": self.choice.facts(), "tolerance": self.make().tolerance()}
        (folder / EXPORT_MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        trained.probes().save(tmp_path / PROBES_FILE)
        try:
            proof = prove(folder, tmp_path / PROBES_FILE, trusted=True)
        except ExportError as error:
            pytest.fail(f"in a fresh process {error.message}")
        assert proof["status"] == "proved", f"it could not be proved: {proof.get('reason')}"

    def test_its_tolerance_tells_the_trained_model_from_the_base(self, trained: TinyTrained) -> None:
        """A share of the largest logit that is the rounding of the format, and no more."""
        probes, tolerance = trained.probes(), self.make().tolerance()
        fits = 0 <= tolerance <= MAX_TOLERANCE
        assert fits, f"tolerance() is {tolerance}: a share of the largest logit, {MAX_TOLERANCE:g} at most"
        if quantizes(self.make()):
            pytest.skip("what it computes is compared with its own reading")
        untrained = [logits(trained.base(), ids) for ids in probes.ids]
        apart, allowed = compare(probes, untrained).largest, allowed_difference(probes, tolerance)
        assert apart > allowed, f"tolerance() is {tolerance}: the base model itself would pass for the trained one"

    def test_its_logits_come_from_its_files(self, trained: TinyTrained, tmp_path: Path) -> None:
        """Without the files that hold tensors it can't compute what was trained."""
        self.export(trained, tmp_path / "export")
        exporter = self.make()
        request = ProofRequest(tmp_path / "export", trained.probes().requested, trained.base)
        probes, allowed = _as_read(exporter, request, trained.probes(), tmp_path)
        try:
            check_it_reads(exporter, tmp_path / "export", probes, trained.base, allowed)
        except ExportError as error:
            pytest.fail(error.message)

    def test_it_writes_into_its_folder_alone(
        self, trained: TinyTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not beside it, not where the command was started, not into the home folder."""
        for name in ("started", "home"):
            (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / "started")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        before = _hashes(tmp_path)
        self.export(trained, tmp_path / "export")
        after = _hashes(tmp_path)
        outside = sorted(name for name, _ in before.items() ^ after.items() if not name.startswith("export/"))
        assert not outside, f"export() changed {', '.join(outside)}, outside of the folder that it is given"
        assert after.keys() - before.keys(), "export() wrote nothing"

    def test_its_facts_are_json_beside_those_of_the_manifest(self, trained: TinyTrained, tmp_path: Path) -> None:
        """A fact with the name of one of core's would hide it."""
        facts = self.export(trained, tmp_path / "export")
        assert json.loads(json.dumps(facts)) == dict(facts), f"facts are JSON; these are not: {facts}"
        hidden = sorted(OF_THE_MANIFEST & facts.keys())
        assert not hidden, f"export() returns {', '.join(hidden)}, which the manifest says already: name it otherwise"

    def test_exporting_twice_writes_the_same_bytes(self, trained: TinyTrained, tmp_path: Path) -> None:
        """No time, no path, no order of a set."""
        facts = [self.export(trained, tmp_path / name) for name in ("first", "second")]
        first, second = _hashes(tmp_path / "first"), _hashes(tmp_path / "second")
        odd = sorted({name for name, _ in first.items() ^ second.items()})
        assert not odd, f"exporting twice writes another {', '.join(odd)}"
        assert facts[0] == facts[1], f"exporting twice returns {facts[0]} and {facts[1]}"

    def test_the_trained_model_is_left_as_it_was(self, trained: TinyTrained, tmp_path: Path) -> None:
        """Another export may follow."""
        before = _state(trained.model)
        computed = trained.probes()
        self.export(trained, tmp_path / "export")
        after = _state(trained.model)
        odd = [name for name in before if not torch.equal(before[name], after[name])]
        assert not odd, f"export() changed {', '.join(odd[:3])} of the model that it was given"
        assert all(map(torch.equal, computed.logits, trained.probes().logits)), (
            "after export() the model computes otherwise"
        )

    def test_the_tokenizer_is_the_one_that_was_trained_with(self, trained: TinyTrained, tmp_path: Path) -> None:
        """The model's own is left alone, and a tokenizer.json in the export has its vocabulary."""
        folder, own = tmp_path / "export", trained.model.tokenizer
        before = _vocabulary(own)
        self.export(trained, folder)
        assert _vocabulary(own) == before, "export() changed the tokenizer that it was given"
        if (folder / "tokenizer.json").exists():
            backend = self.create(choose(self.host(), "tokenizer", trained.files.tokenizer_backend, {}))
            assert _vocabulary(backend.load(folder)) == before, "the exported tokenizer.json is another tokenizer"

    @pytest.mark.parametrize("vocabulary", [None, "extended", "trained"])
    @pytest.mark.parametrize("shape", ["llama", "qwen2"])
    def test_what_it_loads_besides_weights_is_what_was_trained_with(
        self, shape: str, vocabulary: str | None, tmp_path: Path
    ) -> None:
        """Token ids, chat template, generation settings, stop tokens: those that the exporter answers for."""
        if not isinstance(self.make(), AssetsExporter):
            pytest.skip("it has no assets(): its proof covers logits alone")
        made = {**self.settings, "shape": shape} | ({"vocabulary": vocabulary} if vocabulary else {})
        trained = train_tiny(self.host(), tmp_path, **made)
        if self.refusal(trained) is not None:
            pytest.skip("it has no form of this model")
        folder, settings = tmp_path / "export", {"temperature": 0.5, "do_sample": True, "eos_token_id": [3, 258]}
        folder.mkdir()
        self.make().export(replace(trained.model, generation_config=settings), folder)
        expected = expected_assets(trained.model.tokenizer, ["one text"], generation=settings, stop_tokens=[3, 258])
        request = ProofRequest(
            folder,
            trained.probes().requested,
            trained.base,
            expected.texts,
            expected.conversation,
            expected.date,
            stop_tokens=expected.stop_tokens,
        )
        odd = differences(expected, self.make().assets(request))
        assert not odd, f"what is loaded is not what was trained with; {'; '.join(odd)}"

    def test_what_it_is_proved_with_is_installed(self) -> None:
        """`proved_with` names modules that are distributions too: the manifest keeps their versions."""
        for name in self.make().proved_with:
            assert importlib.util.find_spec(name), f"proved_with names {name}, which can't be imported: install it"
            try:
                assert version(name)
            except PackageNotFoundError:
                pytest.fail(f"proved_with names {name}, which is no distribution: name one whose version can be asked")

    def test_its_card_says_how_the_export_is_loaded(self, trained: TinyTrained, tmp_path: Path) -> None:
        """Where the exporter has a `card`: code that is complete, whichever way it is asked; the folder stays."""
        if not isinstance(self.make(), CardExporter):
            pytest.skip("it says nothing for the model card")
        folder = tmp_path / "export"
        self.export(trained, folder)
        before = _hashes(folder)
        for chat in (True, False):
            card = self.make().card(CardRequest(folder, "owner/base", chat))
            assert isinstance(card, ExportCard), f"card() gives an ExportCard, not {type(card).__name__}"
            assert card.library and card.loading, "a card names the hub's library and one example at least"
            for example in card.loading:
                if example.language == "python":
                    compile(example.code, example.program, "exec")
        assert _hashes(folder) == before, "card() changed the export: core writes the card"

    def _check_loads(self, trained: TinyTrained, folder: Path) -> None:
        self.export(trained, folder)
        probes = trained.probes()
        exporter, request = self.make(), ProofRequest(folder, probes.requested, trained.base)
        with temporary_folder() as place:
            wanted, allowed = _as_read(exporter, request, probes, place)
            asked = replace(request, probes=wanted.requested)
            _check_logits(exporter, wanted, allowed, exporter.logits(asked))


def _as_read(exporter: Exporter, request: ProofRequest, probes: Probes, place: Path) -> tuple[Probes, float]:
    """Returns what the exporter's program has to compute, and how far it may be off.

    That is what was trained; of a quantized export what its own weights compute, which are compared with the former.
    """
    __tracebackhide__ = True
    share = exporter.tolerance()
    reading = reading_of(exporter, request)
    if reading is None:
        return probes, allowed_difference(probes, share)
    read = read_logits(reading, request, place)
    found = compare_rounding(reading, read.exact, probes, request, place)
    assert found.explained, f"its weights are not those that were trained, rounded: {found}"
    compared = read.comparison(probes, share)
    return compared.probes, compared.tolerance


def _check_logits(exporter: Exporter, probes: Probes, allowed: float, found: list[torch.Tensor]) -> None:
    __tracebackhide__ = True
    assert len(found) == len(probes.ids), f"logits() returned {len(found)} tensors for {len(probes.ids)} probes"
    for positions, one in zip(probes.positions, found, strict=True):
        fits = one.ndim == 2 and len(one) == len(positions) and one.dtype == torch.float32
        assert fits, f"logits() are float32 [positions, vocabulary]; this is {one.dtype} {list(one.shape)}"
    off = compare_found(exporter, probes, found).largest
    assert off <= allowed, f"what was exported computes logits that are off by {off:.2g}; {allowed:.2g} is allowed"


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def _state(model: AdaptedModel) -> dict[str, torch.Tensor]:
    """Returns a copy of every number of the model."""
    return {name: tensor.detach().clone() for name, tensor in model.network.state_dict().items()}


def _vocabulary(tokenizer: Tokenizer) -> tuple[str, int, dict[str, int]]:
    return tokenizer.fingerprint, tokenizer.vocab_size, dict(tokenizer.special_tokens)
