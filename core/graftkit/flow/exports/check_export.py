"""Finds out whether an export is what was trained: has its program load it, and compares what that computes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError, ExportError, GraftkitError, TemplateLimitError
from graftkit.flow.base_files.base_facts import base_facts, check_as_opened, check_unchanged
from graftkit.flow.base_files.open_model import open_named_base
from graftkit.flow.base_files.recreate import MakeProvider
from graftkit.flow.exports.asset_differences import covered, differences, tokens_of_base_differ
from graftkit.flow.exports.assets import ExpectedAssets
from graftkit.flow.exports.proof_leftovers import prefix_of_proof
from graftkit.flow.folders.export_configuration import check_configurations
from graftkit.flow.folders.export_manifest import TO_PROVE, ExportManifest, checked_tolerance
from graftkit.flow.folders.refused_files import (
    check_tensor_header,
    refuse_bad_export,
    refuse_bad_tokenizers,
    tokenizer_configs,
)
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.planning.head import with_facts
from graftkit.host.records import shortened
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.exporter import (
    AssetsExporter,
    BaseFileExporter,
    Exporter,
    LoadedAssets,
    MergeBase,
    ProofRequest,
)
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.store.temporaries import held

if TYPE_CHECKING:
    import torch

    from graftkit.flow.exports.base_file_proof import BaseFileProof
    from graftkit.flow.exports.probes import Comparison, Probes
    from graftkit.flow.exports.rounding import ReadComparison, RoundingProof

__all__ = ["check_export", "check_it_reads", "compare_found", "template_check"]

_TENSOR_FILES = frozenset({".safetensors", ".gguf", ".npz", ".npy", ".bin", ".pt", ".pth", ".onnx", ".h5"})


def check_export(folder: Path, probes_file: Path, make: MakeProvider) -> dict[str, Any]:
    """Compares an export's logits with the trained model's, and what else its program loads with the run's own.

    Args:
        folder: The export.
        probes_file: What it is proved with.
        make: Makes the providers that its manifest names.
    """
    manifest = _admitted(folder)
    share = checked_tolerance(manifest.tolerance, str(manifest.exporter.get("name")))
    exporter: Exporter = make("exporter", manifest.exporter)
    missing = [name for name in getattr(exporter, "proved_with", ()) if not _installed(name)]
    if missing:
        reason = f"{', '.join(missing)} is not installed: pip install {' '.join(missing)}"
        return {"status": "not possible", "reason": reason}
    onto = manifest.merge.onto if manifest.merge else "dequantized"
    trained, probes = _kept_probes(probes_file, onto)
    base = _TrainedBase(manifest, make)
    with _temporary_beside(folder) as place:
        found = _compute(exporter, folder, probes, share, base, Path(place))
    base.check()
    return {
        **_told(found, exporter, probes, _odd_assets(folder, manifest, probes, found.assets)),
        **(_told_of_base(folder, probes, found.assets, base) if base.stored_by else {}),
        **_told_of_merge(onto, trained, probes),
    }


def _admitted(folder: Path) -> ExportManifest:
    """Reads an export's manifest, once nothing in the folder is of a kind that no library may see.

    Raises:
        GraftkitError: Something is: code, a header or a configuration that claims more than the files hold.
    """
    manifest = ExportManifest.read(folder, TO_PROVE)
    refuse_bad_export(folder)
    refuse_bad_tokenizers(folder)
    check_configurations(folder)
    return manifest


def _kept_probes(probes_file: Path, onto: MergeBase) -> tuple[Probes, Probes]:
    """Reads what is kept of the model as it was trained, and of it on the weights that the export was merged onto.

    Args:
        probes_file: The run's probes.
        onto: What the export was merged onto, by its manifest.
    """
    from graftkit.flow.exports.probes import Probes, reference_file

    reference = reference_file(probes_file, onto)
    for file in {probes_file, reference}:
        check_tensor_header(file)
    return Probes.load(probes_file), Probes.load(reference)


@dataclass(frozen=True, slots=True)
class _Computed:
    """What an export's program loads and computes, beside what is kept of the trained model.

    Attributes:
        assets: What it loads besides weights.
        lacking: Why that is nothing, where a library is missing.
        compared: What its logits were compared with, and what they may be off by.
        difference: What they are off by.
        on_base_file: What its adapter computes on the base model's own file, where its program reads that.
        rounding: What rounding its weights changes, where its format rounds them.
        experts: Where the logits were compared with the experts that the trained model took: how many choices of its
            routers it makes otherwise, and how many there are.
    """

    assets: LoadedAssets
    lacking: str
    compared: ReadComparison
    difference: Comparison
    on_base_file: BaseFileProof | None
    rounding: RoundingProof | None
    experts: tuple[int, int] | None

    @property
    def holds(self) -> bool:
        """Whether what it computes is what was trained, but for what its format explains."""
        explained = self.rounding is None or self.rounding.explained
        return explained and self.difference.within(self.compared.tolerance)


def _compute(
    exporter: Exporter, folder: Path, probes: Probes, share: float, base: _TrainedBase, place: Path
) -> _Computed:
    """Has an export's program load it and compute the probes' logits.

    Args:
        exporter: What loads it.
        folder: The export.
        probes: What is kept of the trained model.
        share: What the export's format allows, as a share of the logits' size.
        base: The base model.
        place: An empty folder for files.
    """
    from graftkit.flow.exports.base_file_proof import prove_on_base_file
    from graftkit.flow.exports.probes import allowed_difference
    from graftkit.flow.exports.rounding import ReadComparison, compare_rounding, read_logits, reading_of

    request = replace(
        _request(folder, probes, lambda: base.dense(place)),
        base_files=tuple(base.files.files) if isinstance(exporter, BaseFileExporter) else (),
        workspace=place,
    )
    assets, lacking = _loaded_assets(exporter, request)
    reading = reading_of(exporter, request)
    read = read_logits(reading, request, place) if reading else None
    compared = read.comparison(probes, share) if read else ReadComparison(probes, allowed_difference(probes, share))
    wanted, tolerance = compared.probes, compared.tolerance
    difference, experts = _difference(exporter, wanted, replace(request, probes=wanted.requested), tolerance)
    on_base_file, rounding = None, None
    if difference.within(tolerance):
        check_it_reads(exporter, folder, wanted, request.base, tolerance)
        on_base_file = prove_on_base_file(exporter, probes, request, share)
        if reading and read:
            rounding = compare_rounding(reading, read.exact, probes, request, place)
    return _Computed(assets, lacking, compared, difference, on_base_file, rounding, experts)


def _difference(
    exporter: Exporter, probes: Probes, request: ProofRequest, tolerance: float
) -> tuple[Comparison, tuple[int, int] | None]:
    """Compares an export's logits; of a mixture of experts that differs, with the experts that the trained model took.

    Args:
        exporter: What loads the export.
        probes: What is kept of the trained model.
        request: What the exporter is asked.
        tolerance: How far a logit may be off.

    Returns:
        How far they are off; where it took the trained model's experts for that, how many choices it makes otherwise by
        itself, and how many there are.
    """
    from graftkit.flow.exports.expert_choices import watched
    from graftkit.flow.exports.same_experts import same_experts

    if not probes.experts:
        return compare_found(exporter, probes, exporter.logits(request)), None
    logits, made = watched(partial(exporter.logits, request))
    difference = compare_found(exporter, probes, logits)
    if difference.within(tolerance):
        return difference, None
    found = same_experts(probes.experts, probes.positions, made, partial(exporter.logits, request))
    if found is None or not found.turned:
        return difference, None
    return compare_found(exporter, probes, found.logits), (found.turned, found.choices)


def _odd_assets(folder: Path, manifest: ExportManifest, probes: Probes, assets: LoadedAssets) -> list[str]:
    """Says what else an export's program loads than the run had: tokens, chat template, settings."""
    if not probes.assets:
        return []
    stops = manifest.stop_tokens if "stop_tokens" in manifest.model_fields_set else None
    return differences(probes.assets, assets, tokenizer_configs(folder), stops, manifest.asked)


def _told(found: _Computed, exporter: Exporter, probes: Probes, odd: list[str]) -> dict[str, Any]:
    """Returns the proof: what an export was found to be, in JSON."""
    compared, difference = found.compared, found.difference
    return {
        "status": "proved" if found.holds and not odd else "different",
        "covers": covered(probes.head, probes.assets, found.assets),
        "differences": odd,
        "not_covered_because": found.lacking,
        "max_abs_diff": min(difference.largest, 1e308),
        "mean_abs_diff": min(difference.mean, 1e308),
        **(
            {"top1_agreement": difference.top1} if probes.head != "embedding" else {}
        ),  # numbers of a vector are no choice
        "tolerance": compared.tolerance,
        **({"chosen_otherwise": list(found.experts)} if found.experts else {}),
        **({"set_aside": [compared.set_aside, sum(map(len, probes.positions))]} if compared.set_aside else {}),
        "coverage": dict(probes.coverage),
        "loaded_with": {name: _version(name) for name in getattr(exporter, "proved_with", ())},
        **({"on_base_file": asdict(found.on_base_file)} if found.on_base_file else {}),
        **({"rounding": asdict(found.rounding)} if found.rounding else {}),
    }


def _told_of_base(folder: Path, probes: Probes, assets: LoadedAssets, base: _TrainedBase) -> dict[str, Any]:
    """Says what an adapter was proved on, and what the base model's own tokenizer gives otherwise than the adapter's.

    Programs that serve an adapter may take the base model's tokenizer. Where the adapter has new tokens they can't.

    Args:
        folder: The export.
        probes: What is kept of the trained model.
        assets: What the export's program loads besides weights.
        base: The base model, which that program asked for.
    """
    told = {"base_stored_by": base.stored_by}
    config = next((path for path in base.files.files if path.name == "config.json"), None)
    if config is None or probes.assets is None or assets.tokens is None or (folder / VOCABULARY).exists():
        return told
    odd = tokens_of_base_differ(probes.assets, config.parent)
    return {**told, **({"base_tokenizer": odd} if odd else {})}


def _told_of_merge(onto: MergeBase, trained: Probes, probes: Probes) -> dict[str, Any]:
    """Says how far a model merged onto other weights than were trained on is from the one that was trained."""
    from graftkit.flow.exports.probes import compare

    if onto == "dequantized":
        return {}
    found = asdict(compare(trained, probes.logits))
    if probes.head == "embedding":
        del found["top1"]
    return {"merged_onto": onto, "from_trained": found}


def compare_found(exporter: Exporter, probes: Probes, found: Sequence[torch.Tensor]) -> Comparison:
    """Compares what an exporter computed, logits or log-probabilities, with what is kept of the trained model's.

    Args:
        exporter: What computed them.
        probes: What is kept of the trained model's.
        found: The logits of each sequence at its positions, `[positions, vocabulary]`.
    """
    from graftkit.flow.exports.probes import compare

    return compare(probes, found, log_probabilities=getattr(exporter, "log_probabilities", False))


def _request(folder: Path, probes: Probes, base: Callable[[], Any]) -> ProofRequest:
    expected = probes.assets
    if expected is None:
        return ProofRequest(folder, probes.requested, base)
    return ProofRequest(
        folder,
        probes.requested,
        base,
        expected.texts,
        expected.conversation,
        expected.date,
        expected.arguments,
        expected.template,
        expected.stop_tokens,
        template_check(folder, expected),
        pair=expected.pair is not None,
    )


def template_check(folder: Path, expected: ExpectedAssets) -> Callable[[str, Mapping[str, str]], None]:
    """Returns what refuses a chat template that does far more work than it is going to be asked for."""

    def check_template(source: str, tokens: Mapping[str, str]) -> None:
        try:
            template = ChatTemplate(source, tokens, expected.date, ChatOptions(expected.arguments))
            if expected.conversation:  # the run's own template took it
                template.render(expected.conversation, str(folder), add_generation_prompt=True)
            with _refusals_ignored():
                template.render(expected.conversation, str(folder), tools=_FUNCTIONS, add_generation_prompt=True)
        except GraftkitError as error:
            raise ExportError(
                error.message, where=str(folder), hint="Take the export from where it came from."
            ) from None

    return check_template


@contextmanager
def _refusals_ignored() -> Iterator[None]:
    """Passes over that a template takes no such conversation, but not over what it does beyond its limits."""
    try:
        yield
    except TemplateLimitError:
        raise
    except DataError:
        pass


_FUNCTIONS = ({"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}},)
"""Functions that may be called, as programs give them to a template to see whether it takes any."""


def _loaded_assets(exporter: Exporter, request: ProofRequest) -> tuple[LoadedAssets, str]:
    """Returns what the exporter's program loads besides weights, and why it is nothing where a library is missing."""
    if not isinstance(exporter, AssetsExporter):
        return LoadedAssets(), ""
    try:
        return exporter.assets(request), ""
    except ImportError as error:
        return LoadedAssets(), str(error).strip().partition("\n")[0]


def check_it_reads(exporter: Exporter, folder: Path, probes: Probes, base: Callable[[], Any], tolerance: float) -> None:
    """Makes sure that an exporter's logits come from its export: without its tensors it can't compute them.

    It is asked once more, of a copy that lies beside the export and lacks every tensor file; all files, where none
    has the name of one. An honest exporter fails at once.

    Args:
        exporter: The exporter.
        folder: The export.
        probes: What it was proved with.
        base: Builds the base model, as in `ProofRequest`.
        tolerance: What its logits may be off by.

    Raises:
        ExportError: It computes the same.
    """
    with _without_tensors(folder) as hollow:
        try:
            found = exporter.logits(ProofRequest(hollow, probes.requested, base))
            off = compare_found(exporter, probes, found).largest
        except Exception:
            return
    if off <= tolerance:
        raise ExportError(
            "the exporter computed the logits without reading its export: it does so without the tensor files, too",
            where=str(folder),
            hint="An exporter's logits() must load what is in the folder that it is given.",
        )


@contextmanager
def _without_tensors(folder: Path) -> Iterator[Path]:
    """Gives a copy of an export without its tensor files; an empty folder where none is known to be one."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix not in _TENSOR_FILES]
    with _temporary_beside(folder) as name:
        hollow = Path(name)
        for path in kept if len(kept) < len(files) else []:
            target = hollow / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        yield hollow


@contextmanager
def _temporary_beside(folder: Path) -> Iterator[str]:
    """Makes a folder with the same neighbours, so that what an exporter reads of those it finds again."""
    prefix, suffix = prefix_of_proof(folder, os.getpid()), ".partial"
    try:
        made = tempfile.TemporaryDirectory(suffix, prefix, folder.absolute().parent, ignore_cleanup_errors=True)
    except OSError:  # a folder that may only be read
        made = tempfile.TemporaryDirectory(suffix, prefix, ignore_cleanup_errors=True)
    with made as name, held(Path(name)):
        yield name


class _TrainedBase:
    """The base model that was trained on, opened when it is asked for, by its hashes in the manifest."""

    def __init__(self, manifest: ExportManifest, make: MakeProvider) -> None:
        self._manifest, self._make = manifest, make
        self.stored_by = ""
        """The quantizer that gave the weights back, where `dense` was asked for them."""

    @cached_property
    def files(self) -> BaseModelFiles:
        """The model, whose weights are still in its files.

        Raises:
            ModelError: It can't be opened, or is not what was trained on.
        """
        said = self._manifest.model
        found = open_named_base(self._make, self._manifest.model_source, said.reference)
        if said.files:
            check_unchanged(said, base_facts(found))
        return with_facts(found, self._manifest.head)

    def dense(self, place: Path) -> Any:
        """Builds the model: its weights as the quantizer gives them back, float32, in files."""
        import torch

        from graftkit.model.dense_model import load_dense_model

        self.stored_by = shortened(str(self._manifest.quantizer.get("name")))
        kept = Path(tempfile.mkdtemp(dir=place))
        quantizer = self._make("quantizer", self._manifest.quantizer)
        return load_dense_model(self.files, quantizer, getattr(torch, self._manifest.dtype), kept)

    def check(self) -> None:
        """Makes sure that whoever read the files read those: a program opens them by their names.

        Raises:
            ModelError: They were changed since they were opened.
        """
        if "files" in self.__dict__:
            check_as_opened(self.files)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
