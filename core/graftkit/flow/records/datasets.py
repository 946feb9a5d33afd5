"""Opens data sets: finds their files, who reads each, and as what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from graftkit.corpus.answers_compared import AsLabelled, AsPrompts
from graftkit.corpus.columns import columns_of, described, fits
from graftkit.corpus.dataset import Dataset, first_records
from graftkit.corpus.file_names import check_one_split, check_parts
from graftkit.corpus.text_paths import find_data_files
from graftkit.errors import DataError, UnknownFormatError
from graftkit.flow.records.format_guess import Guess
from graftkit.flow.records.handed_records import words_beside
from graftkit.flow.records.hub_datasets import fetch_dataset, parse_hub_path
from graftkit.flow.records.jq_commands import Look
from graftkit.flow.records.left_out import Fit, left_out
from graftkit.flow.records.named_providers import NamedFormat, NamedReader
from graftkit.flow.records.remade_records import remade, remade_left_out
from graftkit.flow.records.remade_texts import remade_texts
from graftkit.flow.records.suggest_format import lists_as_text, suggest_format
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.kinds import Kind
from graftkit.interfaces.objective_config import LearnsFrom
from graftkit.interfaces.reader import NamesNumbers, Reader
from graftkit.interfaces.record_format import RecordFormat
from graftkit.interfaces.record_source import RecordSource
from graftkit.interfaces.yaml_word import yaml_word
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.choice import Choice, judge
from graftkit.recipe.document import Document, KeyPath
from graftkit.recipe.load import as_recipe_error
from graftkit.recipe.paths import is_address, is_hub_dataset
from graftkit.recipe.schema.data import DatasetSection
from graftkit.recipe.schema.providers import ProviderSection
from graftkit.wildcards import matches

__all__ = ["look_at_path", "open_dataset", "open_datasets", "open_path", "read_for"]


def open_datasets(
    bound: BoundRecipe, host: PluginHost, key: str, pinned: Mapping[str, str] | None = None
) -> list[Dataset]:
    """Opens the files that a recipe names.

    Args:
        bound: The recipe.
        host: The plugins.
        key: "train" or "holdout".
        pinned: The commits of data sets of the hub that an earlier attempt took; see `fetch_dataset`.

    Raises:
        DataError: A file is missing or malformed, or it can't be told who reads it, or as what.
        ProviderError: Several plugins' readers could read a file.
    """
    opener = _Opener(host, pinned or {})
    entries: Sequence[DatasetSection] = getattr(bound.recipe.data, key)
    return [
        replace(dataset, entry=number)
        for number, entry in enumerate(entries)
        for dataset in opener.open(
            entry, bound.choices, ("data", key, number), bound.document.where(("data", key, number, "path"))
        )
    ]


def open_dataset(host: PluginHost, path: Path) -> Dataset:
    """Opens one file, of which nothing but its name is known.

    Raises:
        DataError: As for `open_datasets`.
    """
    return _Opener(host).open_file(path)


def open_path(host: PluginHost, path: str, said: Guess | None = None) -> list[Dataset]:
    """Opens a file, the files of a folder, or those that a pattern names.

    Args:
        host: The plugins.
        path: The file, folder or pattern.
        said: What else an entry of a recipe's `data.train` says of them, as `UnknownFormatError.suggested` does of a
            format and its columns; found when left out.

    Raises:
        DataError: As for `open_datasets`.
        RecipeError: What is said is no such entry.
    """
    data = {"path": path, **(said or {})}
    document = Document({"data": {"train": data}}, "recipe", from_file=False)
    try:
        entry = DatasetSection.model_validate(data)
    except ValidationError as error:
        raise as_recipe_error(error, DatasetSection, document, ("data", "train")) from None
    choices: dict[KeyPath, Choice] = {}
    named: dict[Kind, ProviderSection | None] = {"format": entry.format, "reader": entry.reader}
    for kind, section in named.items():
        if section is not None:
            registered = host.registry.resolve(kind, section.use)
            model, key = host.registry.config_class(registered), ("data", "train", kind)
            config = judge(registered, model, section.options, document, key, beside=ProviderSection.model_fields)
            choices[kind,] = Choice(section.use, registered, config)
    return list(_Opener(host).open(entry, choices, (), ""))


def look_at_path(host: PluginHost, path: str) -> list[Mapping[str, Any]]:
    """Returns the first records of a file, or of the first one that a folder or a pattern names, whatever they are.

    Raises:
        DataError: As for `open_datasets`.
    """
    opener = _Opener(host)
    source = RecordSource(opener.find(path)[0])
    return [record for _, record in first_records(opener.reader_of(source)[1], source, {})]


class _FirstRecords:
    """A file's first records, read anew each time that they are looked at.

    Attributes:
        count: How many there are, once they have been looked at.
        begins: The file and line of the first one, likewise.
    """

    def __init__(self, reader: Reader, source: RecordSource, columns: Mapping[str, str]) -> None:
        self._reader, self._source, self._columns = reader, source, columns
        self.count, self.begins = 0, ""

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for number, found in enumerate(first_records(self._reader, self._source, self._columns), 1):
            self.count, self.begins = number, self.begins or found[0]
            yield found


class _Opener:
    """Opens files; each provider is made once."""

    def __init__(self, host: PluginHost, pinned: Mapping[str, str] = MappingProxyType({})) -> None:
        self._host = host
        self._pinned = pinned
        self._asked: dict[Kind, list[dict[str, Any]]] = {}

    def open(
        self, entry: DatasetSection, choices: Mapping[KeyPath, Choice], path: KeyPath, where: str
    ) -> Iterator[Dataset]:
        """Yields the files of a recipe's entry; of one whose `first` records are read those that hold them."""
        reader, format = (self._chosen(choices.get((*path, kind))) for kind in ("reader", "format"))
        origin = None
        if is_hub_dataset(entry.path):
            hub = parse_hub_path(entry.path, entry.revision, where)
            files, origin = fetch_dataset(hub, entry.split, self._pinned, where)
        else:
            files = self.find(entry.path, where)
        left = entry.first
        for place, file in enumerate(files, 1):
            dataset = self._dataset(RecordSource(file), entry, reader, format)
            dataset = replace(dataset, origin=origin, first=left, later=files[place:])
            yield dataset
            if left is not None and len(files) > 1:
                left -= dataset.count()
                if not left:
                    break

    def find(self, path: str, where: str = "") -> list[Path]:
        """Returns the files on this machine that a path names."""
        _check_local(path, where)
        files = find_data_files(path, self._readable, where)
        _check_files(files, path, where)
        return files

    def open_file(self, path: Path) -> Dataset:
        """Opens a file of which nothing but its name is known; a pattern's signs in it are a part of that."""
        return self._dataset(RecordSource(path), DatasetSection(path=str(path)), None, None)

    def _chosen(self, choice: Choice | None) -> tuple[str, Any] | None:
        if choice is None:
            return None
        return choice.use, self._named(choice.registered, choice.config)

    def _dataset(
        self,
        source: RecordSource,
        entry: DatasetSection,
        reader: tuple[str, Reader] | None,
        format: tuple[str, RecordFormat] | None,
    ) -> Dataset:
        reader_name, reads = reader or self.reader_of(source)
        first = _FirstRecords(reads, source, entry.columns)
        found = columns_of(record for _, record in first)
        missing = [theirs for ours, theirs in entry.columns.items() if ours not in found]
        if missing:
            theirs = {entry.columns.get(name, name): column for name, column in found.items()}
            raise DataError(
                f"columns names '{missing[0]}', which the first records do not have: {described(theirs)}",
                where=str(source),
            )
        words = _kept_words(reads, source, entry.columns)
        look = Look(found, first, words=[name for name in words if name in found])
        name, means, known = (
            self._chosen_format(look, *format, source, entry.columns)
            if format
            else self._fitting(look, first, source, reader_name)
        )
        means = means.with_names(words) if words and isinstance(means, NamedFormat) and means.takes_names else means
        if format is None and entry.unused == "report":
            unanswered = getattr(means, "unanswered", False)
            fit = Fit(replace(look, read=known), name, entry.columns, self._formats())
            _refuse_left_out(fit, first, source.path.name, unanswered=unanswered)
        unused = None if entry.unused == "report" else frozenset(entry.unused)
        skip = entry.empty == "skip"
        describe = means.reading if isinstance(means, NamedFormat) and means.describes else None
        dataset = Dataset(
            source, reads, reader_name, means, name, entry.columns, known, unused, skip_empty=skip, describe=describe
        )
        for _, record in first if describe else ():
            dataset.note_reading(record)
        return dataset

    def _readable(self, path: Path) -> bool:
        """Tells whether a file of a folder is one of records, by a reader that accepts it, installed or not."""
        source = RecordSource(path)
        accepted = any(reader.accepts(source) for group in self._groups("reader") for reader in group.values())
        return accepted or self._not_installed(source) is not None

    def reader_of(self, source: RecordSource) -> tuple[str, Reader]:
        """Returns the reader that accepts a file: a built-in one, or else a third party's."""
        source.head  # noqa: B018 (a file that can't be read says so itself)
        for group in self._groups("reader"):
            accepting = [name for name, reader in group.items() if reader.accepts(source)]
            if len(accepting) > 1:
                raise DataError(
                    f"it could be read by {' and by '.join(accepting)}",
                    where=str(source),
                    hint=f"Say which: {{path: {yaml_word(source.path.name)}, reader: {accepting[0]}}}.",
                )
            if accepting:
                return accepting[0], group[accepting[0]]
        lacking = self._not_installed(source)
        if lacking:
            self._host.registry.resolve("reader", lacking.qualified_name, where=str(source))  # says what is missing
        raise DataError(
            "no reader knows files of this name",
            where=str(source),
            hint="Records are read from .jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt and .md, also compressed; "
            f"say which reader it is for: {{path: {yaml_word(source.path.name)}, reader: jsonl}}.",
        )

    def _not_installed(self, source: RecordSource) -> RegisteredProvider | None:
        """Returns the built-in reader that accepts a file, if its requirement is not installed."""
        registry = self._host.registry
        for registered in registry.providers_in_turn("reader")[0]:
            if registry.missing_requirements(registered.provider) and self._made(registered).accepts(source):
                return registered
        return None

    def _fitting(
        self, look: Look, first: _FirstRecords, source: RecordSource, reader_name: str
    ) -> tuple[str, RecordFormat, frozenset[str]]:
        """Returns the one format that fits a file, and the columns that it reads."""
        found = look.found
        for group in [group for answered in (True, False) for group in self._formats_by(answered=answered)]:
            fitting = fits(found, group)
            if len(fitting) == 1:
                return fitting[0].name, group[fitting[0].name], fitting[0].columns
            _check_alike(first, group)
            if fitting:
                ways = "; ".join(f"{fit.name} (of {', '.join(sorted(fit.columns))})" for fit in fitting)
                raise DataError(
                    f"the records could be read as {ways}",
                    where=str(source),
                    hint=f"Say which: {' or '.join(_line_of(fit.name, source) for fit in fitting)}.",
                )
        path, rows = source.path.name, (one for _, one in first)
        offered: tuple[str, Guess | None] | None = None if reader_name != "csv" else lists_as_text(rows, path)
        by_texts = remade_texts(look, path) if offered is None else None
        if by_texts:
            offered = f"Where {by_texts[0]}: {by_texts[1]}", None
        hint, suggested = offered or suggest_format(look, self._formats(), path, alone=first.count == 1)
        raise _unknown(f"no format fits the first records: {described(found)}", first, hint, suggested)

    def _chosen_format(
        self,
        look: Look,
        name: str,
        format: RecordFormat,
        source: RecordSource,
        renamed: Mapping[str, str],
    ) -> tuple[str, RecordFormat, frozenset[str]]:
        """Returns the format that the recipe names, and the columns that it reads."""
        found = look.found
        columns = format.columns(found)
        if columns is not None:
            return name, format, frozenset(columns)
        hint, suggested = suggest_format(look, self._formats(), source.path.name, alone=False)
        use = suggested and suggested.get("format")
        fits_so = not renamed and name == (use["use"] if isinstance(use, Mapping) else use)
        raise DataError(
            f"the first records are not of the format {name}: {described(found)}",
            where=str(source),
            hint=hint if fits_so else "Say which column is which: columns: {ITS_NAME: YOURS}.",
        )

    def _formats_by(self, *, answered: bool) -> list[dict[str, RecordFormat]]:
        """Returns the formats whose records have an answer, or those whose records have none; see `RecordFormat`."""
        return [
            {name: format for name, format in group.items() if getattr(format, "unanswered", False) is not answered}
            for group in self._groups("format")
        ]

    def _formats(self) -> dict[str, RecordFormat]:
        """Returns the formats that are installed, by the names that choose them."""
        return {name: format for group in self._groups("format") for name, format in group.items()}

    def _groups(self, kind: Kind) -> list[dict[str, Any]]:
        """Returns what is installed of a kind, by the names that choose it: built-in providers, then third parties'."""
        if kind not in self._asked:
            registry = self._host.registry
            groups = [
                [registered for registered in group if not registry.missing_requirements(registered.provider)]
                for group in registry.providers_in_turn(kind)
            ]
            names = Counter(registered.provider.name for group in groups for registered in group)
            self._asked[kind] = [
                {_shortest(registered, names): self._made(registered) for registered in group} for group in groups
            ]
        return self._asked[kind]

    def _made(self, registered: RegisteredProvider) -> Any:
        return self._named(registered, self._host.registry.config_class(registered)())

    def _named(self, registered: RegisteredProvider, config: ProviderConfig) -> NamedReader | NamedFormat:
        made = self._host.registry.create_unguarded(registered, config)
        return NamedReader(made, registered) if registered.kind == "reader" else NamedFormat(made, registered)


def _line_of(format: str, source: RecordSource) -> str:
    return f"{{path: {yaml_word(source.path.name)}, format: {format}}}"


def _refuse_left_out(fit: Fit, first: _FirstRecords, path: str, *, unanswered: bool) -> None:
    """Refuses a file whose format leaves out what is likely meant, such as a misspelt column."""
    told = left_out(fit, path)
    if told:
        message, hint, suggested = told
        raise _unknown(message, first, hint, suggested)
    other = (remade if unanswered else remade_left_out)(fit.look, path)
    if other:
        message, hint = other
        raise _unknown(message, first, hint, None)


def _unknown(message: str, first: _FirstRecords, hint: str, suggested: Guess | None) -> UnknownFormatError:
    error = UnknownFormatError(message, where=first.begins, hint=hint)
    error.suggested = suggested
    return error


def _check_files(files: Sequence[Path], path: str, where: str) -> None:
    """Refuses files that are of several splits, or not all that there were, where a folder or a pattern names them."""
    if files == [Path(path)]:
        return
    place, folder = f"{where}: {path}" if where else path, Path(path)
    if folder.is_dir():
        check_one_split([file.relative_to(folder).as_posix() for file in files], path, place)
        check_parts((file.as_posix() for file in files), lambda name: True, place)
    else:
        check_parts((file.as_posix() for file in files), lambda name: matches(name, folder.as_posix()), place)


def _check_local(path: str, where: str) -> None:
    """Refuses what is no file on this machine, with what to do instead."""
    if path == "-":
        raise DataError(
            "standard input can be read only once, and records are read whenever they are needed",
            where=where,
            hint="Write them to a file first, and name that: COMMAND > records.jsonl",
        )
    scheme, rest, address = path.partition("://")
    if not rest or not is_address(path):
        return
    on_the_hub = re.match(r"(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/([\w.-]+/[\w.-]+)", address)
    if on_the_hub:
        hint = f"Write it as the hub's data set: hub:{on_the_hub[1]}"
    elif scheme in ("http", "https"):
        name = Path(address.partition("?")[0]).name or "records.jsonl"
        hint = f"Fetch it first, and name the file: curl --fail --location --output {name} '{path}'"
    else:
        hint = "Copy it to this machine, and write the file's path."
    raise DataError(f"{scheme}:// is no file on this machine", where=f"{where}: {path}" if where else path, hint=hint)


def _shortest(registered: RegisteredProvider, names: Mapping[str, int]) -> str:
    """Returns the name by which a recipe chooses a provider."""
    return registered.provider.name if names[registered.provider.name] == 1 else registered.qualified_name


def _kept_words(reader: Reader, source: RecordSource, columns: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Returns the words that a file keeps for the numbers of its columns, by the format's names of these.

    Args:
        reader: Reads the file.
        source: The file.
        columns: The format's names of columns -> the file's.
    """
    theirs = {name: ours for ours, name in columns.items()}
    found = {**words_beside(source.path), **(reader.names(source) if isinstance(reader, NamesNumbers) else {})}
    return {theirs.get(name, name): words for name, words in found.items()}


def _check_alike(first: _FirstRecords, formats: Mapping[str, RecordFormat]) -> None:
    """Refuses a file of whose first records some are of one format, by the first that is not."""
    known, at = "", ""
    for where, record in first:
        found = columns_of([record])
        names = [fit.name for fit in fits(found, formats)]
        if not known:
            known, at = (names[0], where) if len(names) == 1 else ("", "")
        elif formats[known].columns(found) is None and len(names) == 1:
            raise DataError(
                f"this record is of the format {names[0]}, the one at {at} of the format {known}",
                where=where,
                hint="A file holds records of one format: make it two files, and name both.",
            )
        else:
            formats[known].sample(record, where)  # says what is wrong with it


def read_for(learns_from: LearnsFrom, files: Sequence[Dataset]) -> list[Dataset]:
    """Returns files as an objective learns from them.

    Where it learns labelled answers, a pair is two; where the model answers prompts itself, records need no answer.

    Args:
        learns_from: What the objective learns from.
        files: The files.
    """
    if learns_from == "labelled":
        return [replace(file, format=AsLabelled(file.format)) for file in files]
    if learns_from == "prompts":
        return [replace(file, format=AsPrompts(file.format), answers_itself=True) for file in files]
    return list(files)
