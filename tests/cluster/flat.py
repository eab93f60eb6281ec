"""A million items that do nothing: what a program of them notes, and what may not have grown."""

from __future__ import annotations

import json

from tests.acceptance.conftest import Script

ITEMS = 1_000_000

#: Items of a chunk: 4,000 chunks.
CHUNK = 250

#: KiB that the coordinator may grow from a quarter of the run to its end.
GROWTH = 8 * 1024

#: For the program: ``note(snapshot, …)`` at each progress, with what else is to stay flat.
NOTES = f"""
samples = []

def is_time(snapshot):
    return snapshot.done % (40 * {CHUNK}) == 0

def note(snapshot, *counts):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    memory = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    samples.append([snapshot.done, memory, *counts])

def nothing(number):
    pass
"""

#: The program's last line.
TELL = """
print("SAMPLES", json.dumps(samples))
"""


def stayed_flat(script: Script) -> list[list[int]]:
    """Fail if the coordinator's memory has grown; return the other counts of each sample."""
    (line,) = (line for line in script.out.splitlines() if line.startswith("SAMPLES "))
    samples = json.loads(line.removeprefix("SAMPLES "))
    assert len(samples) > ITEMS / CHUNK / 40 / 2
    early = [memory for done, memory, *_ in samples if ITEMS / 4 <= done <= ITEMS / 2]
    late = [memory for done, memory, *_ in samples if done >= ITEMS * 3 / 4]
    print(f"{early[0]} KiB, {late[-1]} KiB, {len(samples)} samples")
    assert max(late) - min(early) < GROWTH
    return [counts for _, _, *counts in samples]
