"""The figures as text: where the time goes, the table, what breaks batches, the recommendation."""

from __future__ import annotations

from carpool.bench.advice import advice_on, in_a_line
from carpool.bench.figures import Bench, Row
from carpool.progress import duration, in_units
from carpool.words import a_second, counted

MOST_FLUSHES = 5
"""Lines of code named that break batches; what comes after them hardly counts."""

BUSY = 0.6
"""Load for each processor from which the machine is said to be busy."""

MOST_FAILURES = 3
"""Failed items named; whoever wants them all runs a dry run with rejects."""


def text_of(bench: Bench) -> str:
    """Return the report."""
    parts = [_head(bench)]
    if bench.rows:
        parts.append(_table(bench))
    parts += [text for text in (_flushes(bench), _failures(bench)) if text]
    parts.append(f"Recommendation: {advice_on(bench)}")
    return "\n\n".join(parts)


def _head(bench: Bench) -> str:
    of = f" of {bench.total:,}" if bench.total is not None and bench.total > bench.items else ""
    items = f"{bench.items:,}{of} items" if of else counted(bench.items, "item")
    rounds, processors = counted(bench.rounds, "round"), counted(bench.processors, "processor")
    shares = bench.shares
    parts = (
        f"{shares.waiting:.0%} waiting, {shares.database:.0%} database, "
        f"{shares.function:.0%} computing, {shares.overhead:.0%} overhead of Django and carpool"
    )
    lines = [
        f"up to {items}, {rounds} in {duration(bench.seconds)}, {processors}",
        f"an item takes {in_units(bench.item_seconds)}: {parts}",
    ]
    if bench.reading_seconds is not None:
        lines.append(f"reading one from the source takes {in_units(bench.reading_seconds)} more")
    if bench.load > BUSY * bench.processors:
        lines.append(
            f"the machine was busy before (load {bench.load:.1f}): on a quiet one, figures are "
            "steadier"
        )
    return "\n".join(lines)


def _table(bench: Bench) -> str:
    loop = bench.loop
    titles = ["", "items", "chunks of", "items/s", "slowest–fastest", "× loop", "start-up"]
    foretells = bench.total is not None and bench.total > bench.items
    if foretells:
        titles.append(counted(bench.total or 0, "item"))
    lines = [titles]
    notes = []
    for row in bench.rows:
        chunk = "" if row.way.kind == "loop" else f"{row.chunk_size:,}"
        if not row.is_measured:
            notes.append((row.way.label, row.note or "there was no time for it"))
            lines.append([row.way.label, "", "", "–"])
            continue
        cells = [row.way.label, f"{row.items:,}", chunk]
        cells += [
            a_second(row.rate),
            f"{a_second(min(row.rates))}–{a_second(max(row.rates))}",
            f"{row.rate / loop.rate:.1f}" if loop is not None else "",
            f"{row.start_up:.1f} s" if row.way.kind in ("threads", "processes") else "",
        ]
        if foretells:
            assert bench.total is not None
            cells.append(duration(row.seconds_for(bench.total)))
        lines.append(cells)
        notes += _notes(row)
    return "\n".join([_aligned(lines), *_told_once(notes)])


def _notes(row: Row) -> list[tuple[str, str]]:
    """Return what is to be said of a row that was measured, with whom it is said of."""
    way = (
        row.way.label
        if row.way.kind == "loop"
        else f"{row.way.label}, chunks of {row.chunk_size:,}"
    )
    notes = []
    if row.failed:
        notes.append((way, f"{counted(row.failed, 'item')} failed"))
    if row.retries:
        were = "was" if row.retries == 1 else "were"
        notes.append((way, f"{counted(row.retries, 'transaction')} {were} tried again"))
    return notes


def _told_once(notes: list[tuple[str, str]]) -> list[str]:
    """Return a line for each thing that is said, which names all of whom it is said."""
    ways: dict[str, dict[str, None]] = {}
    for way, text in notes:
        ways.setdefault(text, {})[way] = None
    return [f"  {'; '.join(of)}: {text}" for text, of in ways.items()]


def _aligned(lines: list[list[str]]) -> str:
    """Set the first column flush left, the others flush right."""
    columns = max(map(len, lines))
    whole = [line + [""] * (columns - len(line)) for line in lines]
    widths = [max(len(line[c]) for line in whole) for c in range(columns)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in whole
    )


def _flushes(bench: Bench) -> str:
    """Name the lines that break batches."""
    figures = bench.coalesced
    if figures is None or not figures.queued:
        return ""
    text = (
        f"{counted(figures.queued, 'write')} of {counted(bench.profiled, 'item')} became "
        f"{counted(figures.sent, 'statement')}"
    )
    if not figures.early:
        return f"{text}; nothing broke their batches"
    lines = [f"{text}; {_early(figures.early.total())} broke their batches, at"]
    for reason, times in figures.early.most_common(MOST_FLUSHES):
        lines.append(f"  {times:,} × {reason}")
    left = len(figures.early) - MOST_FLUSHES
    if left > 0:
        lines.append(f"  and {counted(left, 'other place')}")
    return "\n".join(lines)


def _early(number: int) -> str:
    return f"{number:,} early flush{'' if number == 1 else 'es'}"


def _failures(bench: Bench) -> str:
    if not bench.failures:
        return ""
    lines = [f"{bench.failed:,} of {counted(bench.profiled, 'item')} failed"]
    lines += [f"  {in_a_line(str(failure))}" for failure in bench.failures[:MOST_FAILURES]]
    return "\n".join(lines)
