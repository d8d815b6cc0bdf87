"""Many mutants, from the command line: ``python -m tests.hostile.mutate --count 10000 --seed 1``.

Prints the kinds of outcomes, and every defect once for each place in the code; ends with status 1 if there is one.
"""

import argparse
import faulthandler
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.outcomes import Outcome, run_mutants

#: Address space of the process: what asks for more than this gets a MemoryError instead of the whole machine.
_ADDRESS_SPACE = 16 * 2**30


def main() -> int:
    """Judge mutants and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the models that show a defect")
    given = parser.parse_args()
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    places: dict[str, list[str]] = {}
    began = last = time.monotonic()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def told(number: int, title: str, outcome: Outcome) -> None:
            nonlocal last, slowest
            now = time.monotonic()
            slowest = max(slowest, (now - last, title))
            last = now
            if outcome.kind == "defect":
                place = _place(outcome.words)
                if place not in places:
                    print(f"\n=== {title}\n{outcome.words}", flush=True)
                    if given.keep is not None:
                        given.keep.mkdir(parents=True, exist_ok=True)
                        (given.keep / f"{given.seed}-{number}.onnx").write_bytes((folder / "mutant.onnx").read_bytes())
                places.setdefault(place, []).append(title)

        tally = run_mutants(given.count, seed=given.seed, folder=folder, told=told)
    took = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\n{given.count} mutants in {took:.0f} s, seed {given.seed}: {dict(tally.counts)}; peak {peak} MB")
    print(f"slowest: {slowest[0]:.1f} s, {slowest[1]}")
    for place, titles in sorted(places.items(), key=lambda item: -len(item[1])):
        print(f"{len(titles):5} {place}")
    return int(bool(tally.defects))


def _place(words: str) -> str:
    """The end of a traceback: what was raised, and the innermost line of the package."""
    lines = words.strip().splitlines()
    inside = [line.strip() for line in lines if "onnxadmm/" in line]
    return f"{inside[-1] if inside else words[:60]} :: {lines[-1][:160]}"


if __name__ == "__main__":
    sys.exit(main())
