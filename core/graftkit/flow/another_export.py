"""Writes and proves another export: of a finished run, or of an adapter from anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from graftkit.arguments import check_choice, check_flags, check_is, check_path, check_text, check_texts
from graftkit.errors import RequestError
from graftkit.flow.add_export import add_export
from graftkit.flow.answering.plugins_of_run import plugins_of_run
from graftkit.flow.events import OnEvent, ignore
from graftkit.flow.folders.adapter_folder import is_adapter_folder
from graftkit.flow.preparation.plan_adapter import PlannedAdapter, TokenizerOf, plan_adapter
from graftkit.flow.run_result import RunResult
from graftkit.flow.state.cancel import CancelToken, check_follower
from graftkit.host.host import PluginHost
from graftkit.interfaces.offline import no_network_if
from graftkit.option_names import option
from graftkit.report.run_manifest import MANIFEST, MergeFacts, RunManifest

if TYPE_CHECKING:
    from graftkit.flow.exports.export_adapter import AdapterExport

__all__ = ["Exported", "export"]


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that was written, and proved unless that was put off.

    Attributes:
        folder: Where it is.
        proof: What proving it gave, as JSON: `status`, `max_abs_diff`, `tolerance`, `covers` and more; where it was put
            off, the status "not yet" and the reason.
        merge: What its adapter was merged onto; None where it is not merged.
        run: The run that it is of, as it is with it; None where it is of an adapter's folder.
    """

    folder: Path
    proof: Mapping[str, Any]
    merge: MergeFacts | None = None
    run: RunResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns folder, proof and merge as JSON."""
        merge = {"merge": self.merge.model_dump(mode="json", exclude_unset=True)} if self.merge else {}
        return {"folder": str(self.folder), "proof": dict(self.proof), **merge}


def export(
    source: str | os.PathLike[str],
    to: str,
    options: Sequence[str] | Mapping[str, Any] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    quantizer: str | None = None,
    tokenizer: TokenizerOf | None = None,
    other_base: bool = False,
    proof: Literal["now", "later"] | None = None,
    host: PluginHost | None = None,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
    offline: bool = False,
) -> Exported:
    """Writes and proves an export without training, or writes it and puts its proof off.

    Of a run the records and the base model must still be where its recipe says. Exports that are there stay as they
    are; one of the same name is replaced once the new one is proved. An adapter's export is written to
    `out/exports/NAME`, beside those that are there of the same adapter.

    Args:
        source: A finished run's folder; or an adapter's in PEFT's format, whoever made it.
        to: The exporter, such as "merged".
        options: Its fields, as a mapping or each "key=value".
        out: An adapter's: where to write; `runs/NAME` of its folder when left out, or `runs/NAME-2` if that is taken.
        base: An adapter's: its base model; the one that its folder names when left out.
        quantizer: An adapter's: how the base's weights are stored; as in training, or as they are, when left out.
        tokenizer: An adapter's: whose is taken where its own and the base model's differ.
        other_base: Whether `base` is taken although the adapter was trained on other files.
        proof: "later" puts the proof off until `verify`, as a recipe's `proof: later` does; when left out, as a run's
            recipe says, and an adapter's export is proved now. "now" proves the run's other exports, too, whose proof
            was put off.
        host: The plugins; those that are installed, without those that the run's recipe leaves out, when left out.
        on_event: Called with what happens; see `graftkit.flow.events`.
        cancel: Stops it when asked to.
        offline: Whether nothing is fetched: what is named as a hub's and not on this machine is refused.

    Raises:
        RequestError: It is neither, has not finished, or there is no such export of it.
        ExportError: The export failed, or computes something else; what was there before is as it was.
        Cancelled: It was stopped.
    """
    path, assignments = Path(check_path(source, "source")), _assignments(options)
    check_text(to, "to")
    check_flags(other_base=other_base, offline=offline)
    check_follower(on_event, cancel)
    if host is not None:
        check_is(host, PluginHost, "host")
    for name, folder in (("out", out), ("base", base)):
        if folder is not None:
            check_path(folder, name)
    if quantizer is not None:
        check_text(quantizer, "quantizer")
    if tokenizer is not None:
        check_choice(tokenizer, "tokenizer", get_args(TokenizerOf))
    if proof is not None:
        check_choice(proof, "proof", ("now", "later"))
    host = host or plugins_of_run(path)
    if is_adapter_folder(path):
        with no_network_if(offline):
            named = None if base is None else os.fspath(base)
            planned = plan_adapter(
                path, host, base=named, quantizer=quantizer, tokenizer=tokenizer, other_base=other_base
            )
            folder = None if out is None else Path(out)
            found = _of_adapter(planned, to, assignments, folder, host, on_event, cancel, later=proof == "later")
        return Exported(found.folder, found.proof, found.merge)
    given = {"out": out, "base": base, "quantizer": quantizer, "tokenizer": tokenizer, "other_base": other_base}
    unused = [option(name) for name, value in given.items() if value]
    if unused and (path / MANIFEST).exists():
        hint = "A run has its own base model and folder. An adapter's folder has an adapter_config.json."
        raise RequestError(
            f"{', '.join(unused)}: only for an adapter's folder, and this is none", where=str(path), hint=hint
        )
    with no_network_if(offline):
        result = add_export(path, to, assignments, proof=proof, host=host, on_event=on_event, cancel=cancel)
    name, facts = list(RunManifest.from_json(result.manifest).exports.items())[-1]
    return Exported(path / "exports" / name, facts.proof, facts.merge, result)


def _of_adapter(
    planned: PlannedAdapter,
    to: str,
    options: Sequence[str],
    out: Path | None,
    host: PluginHost,
    on_event: OnEvent | None,
    cancel: CancelToken | None,
    *,
    later: bool,
) -> AdapterExport:
    from graftkit.flow.exports.export_adapter import export_adapter

    events, stop = on_event or ignore, cancel or CancelToken()
    return export_adapter(planned, to, options, out=out, later=later, host=host, on_event=events, cancel=stop)


def _assignments(options: Sequence[str] | Mapping[str, Any]) -> Sequence[str]:
    """Returns fields as `--set` takes them: JSON is YAML.

    Raises:
        RequestError: They are something else, or one has a value that JSON can't hold.
    """
    if not isinstance(options, Mapping):
        return check_texts(options, "options")
    found = []
    for key, value in options.items():
        try:
            found.append(f"{key}={json.dumps(value, default=os.fspath)}")
        except (TypeError, ValueError, RecursionError) as error:
            hint = "Give what JSON can hold, or a path."
            raise RequestError(f"it can't be written as JSON: {error}", where=f"options.{key}", hint=hint) from None
    return found
