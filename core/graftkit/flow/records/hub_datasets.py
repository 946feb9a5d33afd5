"""Data sets of the Hugging Face hub: which of their files are read, at which commit."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from graftkit.corpus.dataset import HubOrigin
from graftkit.corpus.file_names import SPLITS, check_parts, tells_of
from graftkit.errors import DataError
from graftkit.interfaces.offline import network_allowed, offline_asked
from graftkit.interfaces.record_source import PACKED
from graftkit.visible import first_of
from graftkit.wildcards import matches

__all__ = ["HubDataset", "choose_files", "fetch_dataset", "parse_hub_path"]

_PATH = re.compile(
    r"(?:hub:|hf://datasets/)(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[^/]+))?(?:/(?P<files>.+))?",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[A-Za-z0-9_][\w./+-]{0,199}", re.ASCII)
_TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather")
_TEXTS = (".txt",)
_NO_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "license.txt"})
_SHARD = re.compile(r"(?P<split>.+)-\d{5,}-of-\d{5,}")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A data set of the hub, as a recipe names it.

    Attributes:
        name: "owner/name".
        revision: A branch, a tag or a commit; "main" where none is said.
        files: A file, or a pattern of files, within it; "" where none is said.
    """

    name: str
    revision: str
    files: str

    @property
    def key(self) -> str:
        """What a manifest keeps its commit under."""
        return f"hub:{self.name}@{self.revision}"


def parse_hub_path(path: str, revision: str | None, where: str) -> HubDataset:
    """Returns what `hub:owner/name/files` or `hf://datasets/owner/name@revision/files` names.

    Raises:
        DataError: It is of another form, or names another revision than the recipe says beside it.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise DataError(
            f"'{path}' names no data set of the hub",
            where=where,
            hint="Write hub:OWNER/NAME, or hub:OWNER/NAME/data/train-*.parquet for some of its files.",
        )
    said = unquote(found["revision"]) if found["revision"] else None
    if said and revision and said != revision:
        raise DataError(f"'{path}' names the revision {said}, and revision: {revision} another one", where=where)
    meant = said or revision or "main"
    if not _REVISION.fullmatch(meant) or ".." in meant:  # it becomes a file's name in the cache
        raise DataError(f"no revision can be called {meant!r}", where=where)
    return HubDataset(found["name"], meant, found["files"] or "")


def fetch_dataset(
    dataset: HubDataset, split: str | None, pinned: Mapping[str, str], where: str
) -> tuple[list[Path], HubOrigin]:
    """Fetches a data set's files of one split into the hub's cache; nothing in it is ever run.

    Args:
        dataset: The data set.
        split: The split; that of training where None.
        pinned: The commits that earlier attempts of the run took, by `HubDataset.key`.
        where: The place of the request.

    Returns:
        The files on this machine, sorted by their names in the data set; and where they come from.

    Raises:
        DataError: The hub has no such data set or revision, neither it nor the cache can be read, or the files are
            none, or not those of one data set alone.
    """
    revision = pinned.get(dataset.key, dataset.revision)
    place = f"{where}: {dataset.key}" if where else dataset.key
    _check_name(dataset.name, where)
    listed = _listed(dataset, revision, place)
    if listed is None:
        folder, commit = _cached(dataset, revision, place)
        sizes = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
        names = choose_files(sizes, dataset, split, place)
    else:
        commit, sizes = listed
        names = choose_files(sizes, dataset, split, place)
        folder = _download(dataset, commit, names, place)
        _note_revision(folder, revision, commit)
    size = sum(sizes[name] for name in names)
    origin = HubOrigin(f"hub:{dataset.name}", dataset.revision, commit, len(names), size, listed is None)
    return [folder / name for name in names], origin


def _check_name(name: str, where: str) -> None:
    """Refuses what the hub's library takes for no name, whose error nobody would expect later.

    Raises:
        DataError: It is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    try:
        repo_folder_name(repo_id=name, repo_type="dataset")
    except HFValidationError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"'{name[:100]}' names no data set of the hub: {reason}", where=where) from None


def _listed(dataset: HubDataset, revision: str, place: str) -> tuple[str, dict[str, int]] | None:
    """Asks the hub for the commit and the size of each file; None where the hub can't be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if not network_allowed():
        return None
    try:
        info = HfApi().dataset_info(dataset.name, revision=revision, files_metadata=True)
    except RevisionNotFoundError:
        raise DataError(f"the data set has no revision {revision}", where=place) from None
    except GatedRepoError:
        hint = "Ask for access on its page, and log in: hf auth login."
        raise DataError(
            "the data set is given only to those who have asked for access", where=place, hint=hint
        ) from None
    except RepositoryNotFoundError:
        raise DataError(
            "the hub has no such data set, or you may not see it",
            where=place,
            hint="Check the name; a private one needs: hf auth login. A folder's path may be written ./like/this.",
        ) from None
    except Exception:  # no network, no answer: the cache may have it
        return None
    if info.sha is None:
        return None
    return info.sha, {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _cached(dataset: HubDataset, revision: str, place: str) -> tuple[Path, str]:
    """Returns the folder in which an earlier download lies, and its commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=dataset.name, repo_type="dataset")
    try:
        commit = revision if _COMMIT.fullmatch(revision) else (folder / "refs" / revision).read_text().strip()
        snapshot = folder / "snapshots" / commit
        if _COMMIT.fullmatch(commit) and snapshot.is_dir():
            return snapshot, commit
    except (OSError, ValueError):
        pass
    why = "nothing is fetched, since offline was asked for" if offline_asked() else "the hub can't be reached"
    raise DataError(
        f"{why}, and the data set is not in the cache on this machine",
        where=place,
        hint="Fetch it where there is a network: hf download --repo-type dataset "
        f"{dataset.name} --revision {revision}; HF_HUB_OFFLINE=1 keeps from asking.",
    )


def _download(dataset: HubDataset, commit: str, names: Sequence[str], place: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            dataset.name, repo_type="dataset", revision=commit, allow_patterns=[glob.escape(name) for name in names]
        )
    except Exception as error:
        raise DataError(f"can't be fetched: {' '.join(str(error).split())[:300]}", where=place) from error
    missing = next((name for name in names if not (Path(folder) / name).is_file()), None)
    if missing is not None:
        raise DataError(f"its file {missing} was not fetched", where=place, hint="Try again: what is there is kept.")
    return Path(folder)


def _note_revision(snapshot: Path, revision: str, commit: str) -> None:
    """Notes in the hub's cache which commit a revision is, as the hub's library does, for when it can't be asked."""
    if revision == commit:
        return
    note = snapshot.parent.parent / "refs" / revision
    with suppress(OSError):  # a cache that may not be written to
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(commit)


def choose_files(names: Iterable[str], dataset: HubDataset, split: str | None, place: str) -> list[str]:
    """Returns the files to read, by the names that data sets of the hub commonly have.

    With a pattern those that it matches; else those of records. Of these, those of the split: its name, or one that is
    commonly used for it, stands in the file's name or in a folder's. Without a split those of training, or all where no
    name tells of a split.

    Args:
        names: The files of the data set.
        dataset: What the recipe names.
        split: The split, or None.
        place: The place of the request.

    Raises:
        DataError: There is none, or they are not those of one data set: of several kinds, folders or splits; or a part
            is missing, or there twice.
    """
    visible = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    if dataset.files:
        found = [name for name in visible if name == dataset.files or matches(name, dataset.files)]
        if not found:
            raise DataError(f"no file of it matches {dataset.files}", where=place, hint=_told_files(visible))
        chosen = _of_split(found, split, place) if split else found
        check_parts(chosen, lambda name: matches(name, dataset.files), place)
        return chosen
    found = _of_records(visible)
    if not found:
        raise DataError(_why_none(visible), where=place, hint=_AS_PARQUET)
    chosen = _of_split(found, split or "train", place, all_without=split is None)
    _check_alike(chosen, dataset, place)
    _check_complete(chosen, dataset, place)
    check_parts(chosen, lambda name: True, place)
    return chosen


def _of_records(names: Sequence[str]) -> list[str]:
    """Returns the files that tables are commonly in, or the texts where there is no table."""
    data = [name for name in names if PurePosixPath(name).name.lower() not in _NO_DATA]
    return [n for n in data if _kind(n) in _TABLES] or [n for n in data if _kind(n) in _TEXTS]


def _kind(name: str) -> str:
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in PACKED else path.suffix


def _why_none(names: Sequence[str]) -> str:
    script = next((name for name in names if name.endswith(".py")), None)
    if script:
        return f"the data set is a script, {script}, and no file of records; scripts are never run"
    return f"the data set has no file of records. {_told_files(names)}"


def _told_files(names: Sequence[str]) -> str:
    return f"Its files: {first_of(names, _SHOWN) or 'none'}."


def _of_split(names: Sequence[str], split: str, place: str, *, all_without: bool = False) -> list[str]:
    exact = [name for name in names if (shard := _SHARD.match(PurePosixPath(name).name)) and shard["split"] == split]
    if exact:
        return exact
    words = SPLITS.get(split, (split,))
    found = [name for name in names if tells_of(name, words)]
    if found:
        shards = sorted({shard["split"] for name in found if (shard := _SHARD.match(PurePosixPath(name).name))})
        if len(shards) > 1:
            raise DataError(
                f"it has several splits of that name: {', '.join(shards)}",
                where=place,
                hint=f"Say which: split: {shards[0]}.",
            )
        return found
    others = [name for name in SPLITS if any(tells_of(file, SPLITS[name]) for file in names)]
    if all_without and not others:
        return list(names)
    told = f"it has {' and '.join(others)}" if others else "no file's name tells of a split"
    hint = f"Say another split:, or name the files: {{path: 'hub:OWNER/NAME/{names[0]}'}}."
    raise DataError(f"no file of it is of the split {split}; {told}", where=place, hint=hint)


def _check_alike(names: Sequence[str], dataset: HubDataset, place: str) -> None:
    """Refuses files that are of several kinds, or in several folders: they may be the same records, or others."""
    words = {word for of in SPLITS.values() for word in of}
    kinds = sorted({_kind(name) for name in names})
    folders = sorted({"/".join(part for part in name.split("/")[:-1] if part.lower() not in words) for name in names})
    if len(kinds) > 1:
        raise DataError(
            f"its files are of several kinds: {', '.join(kinds)}",
            where=place,
            hint=f"Say which: {{path: 'hub:{dataset.name}/*{kinds[0]}'}}.",
        )
    if len(folders) > 1:
        shown = ", ".join(folder or "the top one" for folder in folders[:_SHOWN])
        raise DataError(
            f"its files lie in {len(folders)} folders, which may be as many data sets: {shown}",
            where=place,
            hint=f"Say which: {{path: 'hub:{dataset.name}/{folders[-1]}/*'}}; "
            f"or all: {{path: 'hub:{dataset.name}/*{kinds[0]}'}}.",
        )


def _check_complete(names: Sequence[str], dataset: HubDataset, place: str) -> None:
    """Refuses the part of a split that the hub keeps as Parquet where the whole is too large (`partial-train`)."""
    partial = next((name for name in names if any(part.startswith("partial-") for part in name.split("/")[:-1])), None)
    if partial:
        pattern = f"{PurePosixPath(partial).parent}/*"
        raise DataError(
            f"{partial} is of a part of the split alone: the hub makes no Parquet of all of a large data set",
            where=place,
            hint=f"To train on that part: {{path: 'hub:{dataset.name}/{pattern}'}}; or name the data set's own files.",
        )


_AS_PARQUET = (
    "The hub keeps a copy of many data sets as Parquet: revision: refs/convert/parquet; "
    "or fetch it yourself, and name its files."
)
