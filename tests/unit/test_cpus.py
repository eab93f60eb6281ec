"""How many processors this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carpool.executors import cpus


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make it a machine of eight processors, of which this process may use six; no cgroup."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    for name in ("_QUOTA_V2", "_QUOTA_V1", "_PERIOD_V1"):
        monkeypatch.setattr(cpus, name, tmp_path / name)
    return tmp_path


def test_the_affinity_counts_and_not_the_machine(machine: Path) -> None:
    """taskset and cpusets are kept to."""
    assert cpus.usable_cpus() == 6


def test_where_there_is_no_affinity_the_machine_counts(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has no sched_getaffinity; a machine that doesn't know itself has one processor."""
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpus.usable_cpus() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.usable_cpus() == 1


QUOTAS = [
    ("200000 100000\n", 2),
    ("150000 100000\n", 2),
    ("50000 100000\n", 1),
    ("1000 100000\n", 1),
    ("9900000 100000\n", 6),
    ("max 100000\n", 6),
    ("", 6),
    ("nonsense\n", 6),
]


@pytest.mark.parametrize(("text", "expected"), QUOTAS)
def test_a_containers_quota_is_kept_to(machine: Path, text: str, expected: int) -> None:
    """cgroup 2: the quota in whole processors, rounded up; "max" is none."""
    (machine / "_QUOTA_V2").write_text(text)
    assert cpus.usable_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000\n", 3), ("-1\n", 6), ("50000\n", 1)])
def test_an_older_containers_quota_is_kept_to(machine: Path, quota: str, expected: int) -> None:
    """cgroup 1: two files, and -1 is no limit."""
    (machine / "_QUOTA_V1").write_text(quota)
    (machine / "_PERIOD_V1").write_text("100000\n")
    assert cpus.usable_cpus() == expected
