"""What every format promises."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from graftkit.corpus.columns import columns_of
from graftkit.errors import DataError
from graftkit.interfaces.record_format import RecordFormat
from graftkit.interfaces.samples import Conversation, Sample, Unanswered
from graftkit.testing.contracts.base import Contract, refusal

__all__ = ["FormatContract"]

WHERE = "records.jsonl:12"
_ODD: tuple[Any, ...] = (3, True, [], {}, [3], [[]], "", "[{")


class FormatContract(Contract):
    """Makes samples of the records that it is given, and of what they are not.

    Example:
        >>> class TestTrivia(FormatContract):
        ...     provider = "trivia"
        ...     records = ({"clue": "The first letter", "reply": "A"},)

    Attributes:
        records: Some records of the format.
    """

    kind = "format"
    records: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    def sample(self, record: Mapping[str, Any]) -> Sample:
        """Makes a sample with the provider."""
        made: RecordFormat = self.make()
        return made.sample(record, WHERE)

    def test_it_says_what_it_is_for(self) -> None:
        """The contract needs records to try it on."""
        assert self.records, f"{type(self).__name__}.records is empty: give some records of the format"

    def test_its_own_records_fit(self) -> None:
        """It names the columns that it reads, and they are there."""
        for record in self.records:
            found = columns_of([record])
            columns = self.make().columns(found)
            assert columns, f"columns() says that {record} does not fit"
            assert {*columns} <= found.keys(), (
                f"columns() names {sorted({*columns} - found.keys())}, which aren't there"
            )

    def test_what_has_none_of_its_columns_does_not_fit(self) -> None:
        """Each installed format is asked, and exactly one must fit."""
        for strange in ({}, {"no_column_of_anybody": "x"}, {"no_column_of_anybody": [{"a": 1}]}):
            assert self.make().columns(columns_of([strange])) is None, f"columns() says that it reads {strange}"

    def test_a_record_becomes_a_sample(self) -> None:
        """With the place that errors name, and something to learn; a conversation's roles are those of templates."""
        for record in self.records:
            sample = self.sample(record)
            assert isinstance(sample, get_args(Sample)), f"sample() returned a {type(sample).__name__}"
            assert sample.where == WHERE, f"where is {sample.where!r}, not what was given"
            if isinstance(sample, Conversation) and not isinstance(sample, Unanswered):
                assert any(message.loss_weight for message in sample.messages), "nothing in it is learnt"

    def test_one_record_gives_one_sample_and_stays_as_it_is(self) -> None:
        """Records are read more than once, and what is read must be the same."""
        for record in self.records:
            given = copy.deepcopy(dict(record))
            first, second = self.sample(given), self.sample(given)
            assert first.key() == second.key(), "the same record gives another sample"
            assert given == record, f"sample() changed the record to {given}"

    def test_every_character_of_what_it_reads_is_in_the_sample(self) -> None:
        """Nothing is dropped in silence: texts of the columns that it names come back, whatever is in them."""
        for record in self.records:
            columns = self.make().columns(columns_of([record])) or ()
            texts = [value for name, value in record.items() if name in columns and isinstance(value, str) and value]
            said = str(self.sample(record).key())
            lost = [text for text in texts if text not in said and repr(text)[1:-1] not in said]
            assert not lost, f"{lost[0]!r} is in a column that columns() names, and not in the sample"

    def test_a_record_that_lacks_a_column_or_has_another_type_is_a_data_error(self) -> None:
        """Never another exception: a record's author sees its file and line."""
        for record in self.records:
            for name in record:
                without = {key: value for key, value in record.items() if key != name}
                for changed in (without, *({**record, name: odd} for odd in _ODD)):
                    did = refusal(lambda it=changed: self.sample(it), DataError)  # type: ignore[misc]
                    assert did in ("", "accepted it"), f"of {changed} it {did}: raise DataError(..., where=where)"
