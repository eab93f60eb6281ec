"""Counts and rates in words, as reports and tables show them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural but for one; of those that take an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def needed(number: int, noun: str, connections: int) -> str:
    """Return that so many of those need so many connections."""
    need = "needs" if number == 1 else "need"
    return f"{counted(number, noun)} {need} {counted(connections, 'connection')}"


def a_second(rate: float) -> str:
    """Return a rate as a number: to two figures below 10, so that slow items don't have none."""
    return f"{rate:,.0f}" if rate >= 9.95 or rate <= 0 else f"{rate:.2g}"
