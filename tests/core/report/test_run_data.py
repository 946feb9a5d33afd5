"""What the report and a comparison read of a run's folder."""

from __future__ import annotations

from graftkit.report.run_data import answers_side_by_side, length_figures


def test_lengths_are_counted() -> None:
    found = length_figures([10, 20, 30, 40, 1000], 60)
    assert found is not None
    assert (found.examples, found.tokens, found.loss_tokens) == (5, 1100, 60)
    assert (found.shortest, found.median, found.long, found.longest) == (10, 30, 1000, 1000)
    assert sum(count for _, _, count in found.counts) == 5 and len(found.counts) <= 8
    assert found.counts[0][0] == 10 and found.counts[-1][1] == 1000
    assert length_figures([], 0) is None
    one = length_figures([7, 7, 7], 3)
    assert one is not None and one.counts == [(7, 7, 3)]


def test_answers_before_and_after_stand_side_by_side() -> None:
    def said(answer: str, right: bool, prompt: str = "p", **more: str) -> dict[str, object]:
        return {"prompt": prompt, "expected": "e", "answer": answer, "right": right, **more}

    before = [said("no", False, where="a:1", question="q"), said("only before", False, "other"), {"answer": 3}, None]
    [both, alone] = answers_side_by_side(before, [said("e", True, where="a:1", question="q")])
    assert (both.where, both.question, both.before, both.after) == ("a:1", "q", "no", "e")
    assert not both.right_before and both.right_after
    assert alone.question == "other" and alone.before == "only before" and alone.after is None
