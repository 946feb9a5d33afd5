"""`python -m hostile [PARSER ...] [--inputs N]` runs the campaign; `python -m hostile PARSER --seed S` one input."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from hostile.campaign import Tally, run
from hostile.originals import CACHE
from hostile.parsers import PARSERS, parser_named
from hostile.worker import SECONDS, judge

_HEAD = ("parser", "inputs", "accepted", "refused", "failures", "slowest, s", "most memory, MB", "minutes")


def main() -> int:
    """Runs what the command line asks for; returns 1 if an input failed."""
    options = _options()
    if options.seed is not None:
        return _one(options.parsers[0], options.seed)
    with tempfile.TemporaryDirectory(prefix="hostile-originals-") as originals:
        os.environ.setdefault(CACHE, originals)
        return _all(options)


def _all(options: argparse.Namespace) -> int:
    tallies = []
    for name in options.parsers or PARSERS:
        until = time.monotonic() + options.minutes * 60 if options.minutes else None
        seeds = range(options.first, options.first + options.inputs)
        tallies.append(run(name, seeds, options.workers, until))
        _tell(tallies[-1], options.failures)
    print("\n" + _table(tallies))
    return 1 if any(tally.failures for tally in tallies) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hostile", description=__doc__)
    parser.add_argument("parsers", nargs="*", metavar="PARSER", help=f"of: {', '.join(PARSERS)}; all without one")
    parser.add_argument("--inputs", type=int, default=2000, help="inputs for each parser (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side (%(default)s)")
    parser.add_argument("--minutes", type=float, help="how long each parser gets at most")
    parser.add_argument("--failures", type=Path, help="a folder for the failures, a line of JSON each")
    parser.add_argument("--seed", type=int, help="run this input alone, keep it and show what it gives")
    options = parser.parse_args()
    unknown = [name for name in options.parsers if name not in PARSERS]
    if unknown or (options.seed is not None and len(options.parsers) != 1):
        parser.error(f"no parser is called {unknown[0]}" if unknown else "--seed takes one parser")
    return options


def _one(name: str, seed: int) -> int:
    parser = parser_named(name)
    place = Path(tempfile.mkdtemp(prefix=f"hostile-{seed}-"))
    parser.prepare(place)  # for some that is a whole run
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    again = place / "again"
    again.mkdir()
    parser.make(random.Random(f"{name}:{seed}"), again)
    try:
        parser.read(again)
    except BaseException as error:
        print(f"{type(error).__module__}.{type(error).__name__}: {str(error)[:3000]}\n")
    (place / str(seed)).mkdir()
    verdict = judge(parser, seed, place / str(seed))
    print(json.dumps({key: value for key, value in asdict(verdict).items() if key != "details"}, indent=2))
    print(verdict.details, f"the input: {place / str(seed)}", sep="\n")
    return 1 if verdict.outcome == "failed" else 0


def _tell(tally: Tally, folder: Path | None) -> None:
    print(f"{tally.parser}: {tally.tried:,} inputs, {len(tally.failures)} failures", flush=True)
    for verdict in tally.failures[:40]:
        print(f"  --seed {verdict.seed}: {verdict.problem} ({', '.join(verdict.kinds)})", flush=True)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(asdict(verdict)) + "\n" for verdict in tally.failures)
        (folder / f"{tally.parser.replace(' ', '-')}.jsonl").write_text(lines)


def _table(tallies: list[Tally]) -> str:
    rows = [
        (
            tally.parser,
            f"{tally.tried:,}",
            f"{tally.outcomes['accepted']:,}",
            f"{tally.outcomes['refused']:,}",
            f"{len(tally.failures):,}",
            f"{tally.slowest.seconds:.2f}",
            f"{tally.largest.memory / 2**20:.0f}",
            f"{tally.seconds / 60:.1f}",
        )
        for tally in tallies
    ]
    head, rule = f"| {' | '.join(_HEAD)} |", "|---|" + "---:|" * (len(_HEAD) - 1)
    return "\n".join([head, rule, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    sys.exit(main())
