"""Records of tests that train or measure: texts with a label, and files of records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["WORDS", "labelled_texts", "multi_labelled_texts", "paired_texts", "scored_texts", "tagged_texts", "written"]

WORDS = {"good": ("lovely", "great"), "bad": ("awful", "poor")}
"""What tells the label of a text."""


def labelled_texts(count: int) -> list[dict[str, Any]]:
    """Returns texts with the labels good and bad, half of each where the count is a multiple of four."""
    labels = [("good", "bad", "bad", "good")[n % 4] for n in range(count)]
    return [
        {"text": f"the film {n} was {WORDS[label][n % 2]} and long", "label": label} for n, label in enumerate(labels)
    ]


def multi_labelled_texts(count: int) -> list[dict[str, Any]]:
    """Returns texts that have the labels good and long, one of them, or neither."""
    found = []
    for n in range(count):
        word, length = WORDS["good" if n % 2 else "bad"][n // 4 % 2], "long" if n & 2 else "short"
        labels = [*(["good"] if n % 2 else []), *(["long"] if n & 2 else [])]
        found.append({"text": f"the film {n} was {word} and {length}", "labels": labels})
    return found


def paired_texts(count: int) -> list[dict[str, str]]:
    """Returns pairs of texts, and whether both like the film."""
    words = ("lovely", "awful", "great", "poor")
    liked = {"lovely", "great"}
    found = []
    for number in range(count):
        first, second = words[number % 4], words[number // 4 % 4]
        same = "yes" if (first in liked) == (second in liked) else "no"
        found.append({"premise": f"film {number} was {first}", "hypothesis": f"it was {second}", "label": same})
    return found


def scored_texts(count: int) -> list[dict[str, Any]]:
    """Returns texts with the numbers 0.75 and -0.5, as they are good and bad."""
    return [
        {"text": record["text"], "score": 0.75 if record["label"] == "good" else -0.5}
        for record in labelled_texts(count)
    ]


def tagged_texts(count: int) -> list[dict[str, Any]]:
    """Returns words with their tags: names of people, of one word or two, among others."""
    random = Random(0)
    names = [["ada"], ["bob", "kim"]]
    records = []
    for _ in range(count):
        parts = [random.choice([["the"], ["film"], ["was"], ["long"], *names]) for _ in range(random.randint(2, 6))]
        tags = [["B-PER", "I-PER"][: len(part)] if part in names else ["O"] for part in parts]
        records.append(
            {"tokens": [word for part in parts for word in part], "tags": [tag for one in tags for tag in one]}
        )
    return records


def similar_texts(count: int) -> list[dict[str, Any]]:
    """Returns queries of two words, texts that have both, and texts that have one of them."""
    random, words = Random(0), ("the", "film", "was", "long", "short", "love", "great", "awful", "poor")
    found = []
    for _ in range(count):
        first, second, third, fourth = random.sample(words, 4)
        query, positive = f"{first} {second}", f"{third} {second} and {first}"
        found.append({"query": query, "positive": positive, "negative": f"{first} {fourth} {third}"})
    return found


def written(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a file of records, one a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
