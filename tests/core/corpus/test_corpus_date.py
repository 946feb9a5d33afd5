"""A template that writes the date writes one day, whichever it is laid out on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pytest
from graftkit import Tokenizer
from graftkit.corpus.encode import Encoder
from graftkit.corpus.template import ChatTemplate
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.interfaces.samples import Conversation, Message

DAY, ANOTHER = date(2026, 1, 31), date(2026, 2, 1)
FORMATS = ("%d %B %Y", "%Y-%m-%d", "%A, %-d %b %y", "%j %U %H:%M:%S %p", "%x %X %c", "%%")
DATED = "{%- if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}{{ messages[0]['content'] }}"
DATELESS = "{{ messages[0]['content'] }}: strftime_now"
ROW = Conversation((Message("user", "hi"),), "record")


def frozen(day: date) -> type[datetime]:
    """A `datetime` whose now is one day's first moment."""

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(day.year, day.month, day.day)

    return Frozen


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_what_transformers_writes_on_that_day(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import chat_template_utils

    source = "{{ strftime_now('" + format + "') }}"
    for day in (DAY, date(2024, 2, 29)):
        monkeypatch.setattr(chat_template_utils, "datetime", frozen(day))
        (theirs,), _ = chat_template_utils.render_jinja_template([[]], chat_template=source)
        assert ChatTemplate(source, {}, day).render([], "record") == theirs


@pytest.fixture
def encoder(bytewise: Tokenizer) -> Callable[[str, date], Encoder]:
    def make(source: str, day: date) -> Encoder:
        return Encoder(bytewise, chat_template_of(bytewise.with_chat_template(source), day), 64)

    return make


def test_another_day_is_another_encoder_where_the_template_asks_for_it(
    encoder: Callable[[str, date], Encoder],
) -> None:
    dated, same, later = (encoder(DATED, day) for day in (DAY, DAY, ANOTHER))
    assert dated.fingerprint == same.fingerprint != later.fingerprint
    assert dated.prompt(ROW) == same.prompt(ROW) != later.prompt(ROW)


def test_and_the_same_one_where_it_does_not(encoder: Callable[[str, date], Encoder]) -> None:
    assert encoder(DATELESS, DAY).fingerprint == encoder(DATELESS, ANOTHER).fingerprint


def test_a_template_that_has_no_day_writes_the_day_of_its_rendering() -> None:
    written = ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", {}).render([], "record")
    assert written in (date.today().isoformat(), datetime.now().strftime("%Y-%m-%d"))
