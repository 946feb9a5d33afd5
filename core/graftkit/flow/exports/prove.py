"""Runs in a process of its own: loads an export afresh, runs the probes, and prints what differs from the run.

    python -m graftkit.flow.exports.prove EXPORT PROBES PARENT [--made-by-this-run]
    python -m graftkit.flow.exports.prove --forks PARENT [PACKAGE...]

PARENT is the process that asks, with which this one ends. The second form imports what proofs need, those by PACKAGEs
among them, and is forked for each export (`proof_forks.py`).

It shares nothing with the run but the files, so that what it finds is what another program will find.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError, ExportError, GraftkitError, TemplateLimitError, named
from graftkit.flow.base_files.base_facts import base_facts, check_as_opened, check_unchanged
from graftkit.flow.base_files.open_model import open_named_base
from graftkit.flow.base_files.recreate import InstalledProviders, MakeProvider, ProvidersOfThisRun
from graftkit.flow.end_with_parent import end_with_parent
from graftkit.flow.exports.assets import ExpectedAssets, covered, differences
from graftkit.flow.exports.proof_forks import FORKS, serve_forks
from graftkit.flow.exports.proof_leftovers import prefix_of_proof
from graftkit.flow.folders.export_configuration import check_configurations
from graftkit.flow.folders.export_manifest import TO_PROVE, ExportManifest, checked_tolerance
from graftkit.flow.folders.refused_files import (
    check_tensor_header,
    refuse_bad_files,
    refuse_bad_tokenizers,
    refuse_foreign_code,
    tokenizer_configs,
)
from graftkit.flow.planning.head import with_facts
from graftkit.host.guard import brief
from graftkit.host.host import PluginHost
from graftkit.host.records import shortened
from graftkit.interfaces.chat_options import ChatOptions
from graftkit.interfaces.exporter import (
    AssetsExporter,
    BaseFileExporter,
    Exporter,
    LoadedAssets,
    ProofRequest,
)
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.store.files import held

if TYPE_CHECKING:
    import torch

    from graftkit.flow.exports.probes import Comparison, Probes

__all__ = ["TRUSTED", "check_it_reads", "main", "template_check"]

TRUSTED = "--made-by-this-run"
"""Says that the export was written a moment ago by the run that asks, so that its manifest may name any class."""

_TENSOR_FILES = frozenset({".safetensors", ".gguf", ".npz", ".npy", ".bin", ".pt", ".pth", ".onnx", ".h5"})


def main() -> None:
    """Prints what plugins warned of and then the proof, each a line of JSON, alone on standard output.

    Whatever else is printed goes to standard error.
    """
    if sys.argv[1] == FORKS:
        end_with_parent(int(sys.argv[2]))
        answers = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        _import_what_proofs_need(sys.argv[3:])
        serve_forks(main, os.fdopen(os.dup(0), "rb"), answers)
        os._exit(0)
    end_with_parent(int(sys.argv[3]))
    folder, probes = map(Path, sys.argv[1:3])
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(warnings: list[str]) -> None:
        print(json.dumps({"warnings": warnings}), file=output, flush=True)

    print(json.dumps(answer(folder, probes, trusted=sys.argv[4:] == [TRUSTED], report=report)), file=output, flush=True)
    sys.stderr.flush()
    os._exit(0)  # whatever threads a program has left behind


def _import_what_proofs_need(packages: Sequence[str]) -> None:
    """Imports what takes a proof seconds, and starts neither a thread nor a device."""
    import graftkit.flow.exports.base_file_proof
    import graftkit.flow.exports.rounding
    import graftkit.model.load  # noqa: F401

    if {"transformers", "peft"} & {*packages}:
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: F401


def answer(
    folder: Path, probes: Path, *, trusted: bool, report: Callable[[list[str]], None] | None = None
) -> dict[str, Any]:
    """Returns what the process that proves an export says: the proof, or why there is none.

    Args:
        folder: The export.
        probes: The probes' file.
        trusted: Whether the export's manifest may name any class.
        report: Called with what plugins warned of, whatever the proof comes to.
    """
    providers: ProvidersOfThisRun | InstalledProviders = (
        ProvidersOfThisRun() if trusted else InstalledProviders(PluginHost())
    )
    try:
        with named(str(folder)):
            return check(folder, probes, providers.make)
    except GraftkitError as error:
        return {"status": "failed", "message": error.message, "hint": error.hint, "where": error.where}
    except Exception as error:  # whatever the program that loads it fails with
        message = shortened(f"it can't be loaded again: {brief(error)}")
        return {"status": "failed", "message": message, "hint": _raised_by(error), "where": str(folder)}
    finally:
        if report:
            report(providers.warnings)


def _raised_by(error: Exception) -> str:
    """Returns the note that names the plugin which raised an error, as a sentence."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("plugin ")]
    return f"{shortened(notes[0])}." if notes else ""


def check(folder: Path, probes_file: Path, make: MakeProvider) -> dict[str, Any]:
    """Compares an export's logits with the trained model's, and what else its program loads with the run's own."""
    from graftkit.flow.exports.base_file_proof import prove_on_base_file
    from graftkit.flow.exports.probes import Probes, allowed_difference, compare, reference_file
    from graftkit.flow.exports.rounding import ReadComparison, compare_rounding, read_logits, reading_of

    manifest = ExportManifest.read(folder, TO_PROVE)
    refuse_foreign_code(folder)
    refuse_bad_files(folder)
    refuse_bad_tokenizers(folder)
    check_configurations(folder)
    share = checked_tolerance(manifest.tolerance, str(manifest.exporter.get("name")))
    exporter: Exporter = make("exporter", manifest.exporter)
    missing = [name for name in getattr(exporter, "proved_with", ()) if not _installed(name)]
    if missing:
        return {"status": "not possible", "reason": f"{', '.join(missing)} is not installed"}
    onto = manifest.merge.onto if manifest.merge else "dequantized"
    reference = reference_file(probes_file, onto)
    for file in {probes_file, reference}:
        check_tensor_header(file)
    trained, probes = Probes.load(probes_file), Probes.load(reference)
    asked_for_base: list[str] = []
    opened = _TrainedBase(manifest, make)

    def base() -> Any:
        asked_for_base[:] = [shortened(str(manifest.quantizer.get("name")))]
        return opened.dense(Path(place))

    with _temporary_beside(folder) as place:
        request = replace(
            _request(folder, probes, base),
            base_files=tuple(opened.files.files) if isinstance(exporter, BaseFileExporter) else (),
            workspace=Path(place),
        )
        assets, lacking = _loaded_assets(exporter, request)
        reading = reading_of(exporter, request)
        read = read_logits(reading, request, Path(place)) if reading else None
        compared = read.comparison(probes, share) if read else ReadComparison(probes, allowed_difference(probes, share))
        wanted, tolerance = compared.probes, compared.tolerance
        difference = compare_found(exporter, wanted, exporter.logits(replace(request, probes=wanted.requested)))
        on_file, rounding = None, None
        if difference.within(tolerance):
            check_it_reads(exporter, folder, wanted, request.base, tolerance)
            on_file = prove_on_base_file(exporter, probes, request, share)
            if reading and read:
                rounding = compare_rounding(reading, read.exact, probes, request, Path(place))
    opened.check()
    unexplained = rounding is not None and not rounding.explained
    said_stops = manifest.stop_tokens if "stop_tokens" in manifest.model_fields_set else None
    flags = tokenizer_configs(folder)
    odd = differences(probes.assets, assets, flags, said_stops, manifest.asked) if probes.assets else []
    return {
        "status": "proved" if difference.within(tolerance) and not odd and not unexplained else "different",
        "covers": covered(probes.assets, assets),
        "differences": odd,
        "not_covered_because": lacking,
        "max_abs_diff": min(difference.largest, 1e308),
        "mean_abs_diff": min(difference.mean, 1e308),
        "top1_agreement": difference.top1,
        "tolerance": tolerance,
        **({"set_aside": [compared.set_aside, sum(map(len, probes.positions))]} if compared.set_aside else {}),
        "coverage": dict(probes.coverage),
        "loaded_with": {name: _version(name) for name in getattr(exporter, "proved_with", ())},
        **({"base_stored_by": asked_for_base[0]} if asked_for_base else {}),
        **(
            {"merged_onto": onto, "from_trained": asdict(compare(trained, probes.logits))}
            if onto != "dequantized"
            else {}
        ),
        **({"on_base_file": asdict(on_file)} if on_file else {}),
        **({"rounding": asdict(rounding)} if rounding else {}),
    }


def compare_found(exporter: Exporter, probes: Probes, found: Sequence[torch.Tensor]) -> Comparison:
    """Compares what an exporter computed, logits or log-probabilities, with what is kept of the trained model's."""
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

        from graftkit.model.load import load_dense_model

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


if __name__ == "__main__":
    main()
