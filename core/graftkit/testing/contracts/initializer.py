"""What every initializer promises."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import get_args

import pytest
import torch

from graftkit.interfaces.initializer import MatrixRole, NewRows
from graftkit.interfaces.tokenizer import TokenizerBackend
from graftkit.testing.contracts.base import Contract, choose
from graftkit.testing.contracts.vocabularies import TEXTS, TinyChange, with_parts
from graftkit.testing.fresh import call_fresh

__all__ = ["InitializerContract"]

ROLES: tuple[MatrixRole, ...] = get_args(MatrixRole)


class InitializerContract(Contract):
    """Gives tiny vocabularies that changed to an initializer and looks at the rows that it makes.

    Example:
        >>> class TestNearest(InitializerContract):
        ...     provider = "nearest"
    """

    kind = "initializer"

    @pytest.fixture(params=[False, True], ids=["extended", "replaced"])
    def change(self, request: pytest.FixtureRequest) -> TinyChange:
        """A vocabulary that got more tokens, and one whose old tokens have other ids as well."""
        return TinyChange(self.backend(), replaced=request.param)

    def backend(self) -> TokenizerBackend:
        """Returns what loads the tiny tokenizers."""
        found: TokenizerBackend = self.create(choose(self.host(), "tokenizer", "huggingface", {}))
        return found

    def start(self, new: NewRows) -> torch.Tensor:
        """Makes rows with the provider and looks at their shape and type."""
        rows = self.make().rows(new)
        assert type(rows) is torch.Tensor, f"rows returned a {type(rows).__name__}: return a plain tensor"
        wanted = (len(new.ids), new.weight.shape[1])
        assert tuple(rows.shape) == wanted, f"rows has the shape {list(rows.shape)}, not [new, hidden] = {list(wanted)}"
        assert rows.dtype == torch.float32, f"rows are {rows.dtype}: float32, whatever they are stored in later"
        assert not rows.requires_grad, "rows still hang on what they were computed from: detach them"
        bad = [n for n, row in enumerate(rows) if not bool(row.isfinite().all())]
        assert not bad, (
            f"rows {bad[:5]} hold NaN or infinity; these tokens' parts are {[new.parts[n] for n in bad[:5]]}"
        )
        return rows

    def test_every_new_token_gets_a_row(self, change: TinyChange) -> None:
        """Float32 and finite, for each use of a matrix and each width."""
        for role in ROLES:
            for hidden in (1, 16, 33):
                self.start(change.rows(role, hidden))

    def test_whatever_stood_for_a_token_it_gets_a_row(self, change: TinyChange) -> None:
        """Nothing, one token, one twice, a long row of them; together and alone."""
        some: list[tuple[int, ...]] = [(), (7,), (5, 5), (0, 1, 0, 258), tuple(range(250))]
        for role in ROLES:
            new = change.rows(role)
            self.start(with_parts(new, *some))
            for parts in some:
                self.start(with_parts(new, parts))
            self.start(with_parts(new, (), ()))

    def test_no_new_token_is_no_row(self, change: TinyChange) -> None:
        """Rather than an error."""
        self.start(with_parts(change.rows()))

    def test_it_does_without_texts_and_without_kept_tokens(self, change: TinyChange) -> None:
        """A tokenizer may come from elsewhere, and may share nothing with the base's."""
        new = change.rows()
        self.start(replace(new, texts=()))
        self.start(replace(new, texts=("", "z")))
        self.start(replace(new, kept={}))
        self.start(replace(new, kept={}, texts=()))

    def test_one_request_always_gives_the_same_rows(self, change: TinyChange) -> None:
        """From the same object and from another, whatever the process's random state, which is left as it was."""
        for role in ROLES:
            new = change.rows(role)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                before = torch.get_rng_state()
                maker = self.make()
                first, second = maker.rows(new), maker.rows(new)
                assert torch.equal(before, torch.get_rng_state()), "rows draws from torch's global random state"
                assert torch.equal(first, second), "asked twice, one object gives other rows"
                torch.manual_seed(2)
                assert torch.equal(first, self.start(new)), "another object gives other rows"

    def test_every_process_gives_the_same_rows(self) -> None:
        """Whatever PYTHONHASHSEED is."""
        backend, tokenizers = self.backend(), choose(self.host(), "tokenizer", "huggingface", {})
        changes = [TinyChange(backend, replaced=replaced) for replaced in (False, True)]
        expected = [self.start(change.rows()).tolist() for change in changes]
        facts = (self.choice.facts(), tokenizers.facts())
        found = call_fresh("graftkit.testing.errands:start_rows", *facts, PYTHONHASHSEED="1")
        assert found == expected, "with PYTHONHASHSEED=1 the rows are others: sort what they are made from"

    def test_torchs_default_type_changes_nothing(self, change: TinyChange) -> None:
        """A program may have set it to 16 bits for its model."""
        new = change.rows()
        expected = self.start(new)
        for dtype in (torch.bfloat16, torch.float64):
            with default_dtype(dtype):
                assert torch.equal(self.start(new), expected), f"with torch's default {dtype} the rows are others"

    def test_what_it_is_given_stays_as_it_is(self, change: TinyChange) -> None:
        """The matrix goes on being the model's; the rest is used again for the other matrix."""
        new = change.rows()
        weight, rest = new.weight.clone(), copy.deepcopy((new.ids, new.parts, new.kept))
        self.start(new)
        assert torch.equal(new.weight, weight), "rows changes the matrix that it is given"
        assert (new.ids, new.parts, new.kept) == rest, "rows changes the ids, parts or kept that it is given"
        assert tuple(new.texts) == TEXTS, "rows changes the texts that it is given"

    def test_rows_have_memory_of_their_own(self, change: TinyChange) -> None:
        """They are trained; the matrix is frozen."""
        for new in (change.rows(), with_parts(change.rows(), (7,)), with_parts(change.rows(), (7,), (8,))):
            rows = self.start(new)
            before = rows.clone()
            new.weight.fill_(7.0)
            assert torch.equal(rows, before), "the rows share memory with the matrix: clone them"

    def test_a_matrix_that_learns_gives_plain_rows_and_gets_no_gradient(self, change: TinyChange) -> None:
        """It may be handed over as the model has it, a Parameter, or a part of a larger one."""
        new = change.rows()
        learning = replace(new, weight=torch.nn.Parameter(new.weight.clone()))
        assert torch.equal(self.start(learning), self.start(new)), "a Parameter gives other rows than its numbers"
        sliced = replace(new, weight=torch.cat([new.weight, new.weight], 1)[:, : new.weight.shape[1]])
        same = torch.allclose(self.start(sliced), self.start(new), atol=1e-6)
        assert same, "a matrix that is not contiguous gives other rows than its copy"


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Sets torch's default type for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
