"""A run over files: the same as over any iterable, and its rejects are the next run's source."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import carpool
from carpool.exceptions import SourceError
from tests.app.functions.saving import create_account
from tests.app.models import Account

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def write(path: Path, number: int, bad: int) -> None:
    """Write rows to a compressed file; ``bad`` is the number of one that fails."""
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["key", "bad"])
        writer.writeheader()
        for n in range(number):
            writer.writerow({"key": f"i{n:03}", "bad": "raise" if n == bad else ""})


def create(row: dict[str, str]) -> None:
    if row["bad"]:
        raise ValueError(row["bad"])
    create_account({"key": row["key"], "bad": None})


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_second_pass_is_one_line(executor: str, tmp_path: Path) -> None:
    """What failed is read from the rejects file, mended, and run again."""
    write(tmp_path / "rows.csv.gz", 30, bad=7)
    rejects = tmp_path / "failed.jsonl"
    options: dict[str, Any] = {"executor": executor, "progress": False}
    report = carpool.run(create, carpool.read(tmp_path / "rows.csv.gz"), rejects=rejects, **options)
    assert (report.succeeded, report.failed) == (29, 1)

    text = rejects.read_text()
    assert json.loads(text)["item"] == {"key": "i007", "bad": "raise"}
    rejects.write_text(text.replace('"bad": "raise"', '"bad": ""'))
    report = carpool.run(create, carpool.read(rejects), **options)
    assert (report.succeeded, report.failed) == (1, 0)
    assert Account.objects.count() == 30


def test_a_damaged_file_is_an_error_after_what_was_read(tmp_path: Path) -> None:
    """The items before the damage are committed and counted; the error has the report."""
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"key": f"i{n}", "bad": ""}) for n in range(10)]
    path.write_text("\n".join([*rows, "{", *rows]))
    with pytest.raises(SourceError) as caught:
        carpool.run(create, carpool.read(path), progress=False)
    assert (caught.value.line, caught.value.column) == (11, 2)
    assert caught.value.report is not None
    assert caught.value.report.succeeded == Account.objects.count() == 10
