"""read(): what may be named, what is refused at once, and that it can be read again."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import carpool
from carpool.exceptions import ConfigurationError, SourceError
from tests.unit.source_files import written
from tests.waiting import HANG

EXTRAS = {
    "a.parquet": ("pyarrow", "parquet"),
    "a.arrow": ("pyarrow", "parquet"),
    "a.xlsx": ("openpyxl", "xlsx"),
}
if sys.version_info < (3, 14):
    EXTRAS["a.csv.zst"] = ("backports.zstd", "zstd")


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, where a file left open is an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small files, which the tests stand in."""
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a", "c"):
        Path(f"{name}.csv").write_text(f"name\n{name}\n")
    Path("d.jsonl").write_text('{"name": "d"}\n')
    return tmp_path


def names(items: Any) -> str:
    return "".join(item["name"] for item in items)


def test_a_file_is_named_by_str_or_path(folder: Path) -> None:
    """A str and a Path name the same file."""
    assert names(carpool.read("a.csv")) == "a"
    assert names(carpool.read(folder / "a.csv")) == "a"


def test_a_glob_gives_its_files_sorted(folder: Path) -> None:
    """The files of a glob come by name, whatever the folder's order; folders are left out."""
    Path("folder.csv").mkdir()
    assert names(carpool.read("*.csv")) == "abc"
    assert names(carpool.read(folder / "[ab].csv")) == "ab"


def test_a_glob_goes_into_folders_with_two_stars(folder: Path) -> None:
    """``**`` matches folders within folders."""
    Path("x/y").mkdir(parents=True)
    Path("x/y/z.csv").write_text("name\nz\n")
    assert names(carpool.read("**/*.csv")) == "abcz"


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    """What is there by its very name is not taken for a pattern."""
    Path("[ab].csv").write_text("name\nitself\n")
    assert names(carpool.read("[ab].csv")) == "itself"


def test_several_are_read_in_the_order_given(folder: Path) -> None:
    """A list may mix names, globs and formats; any iterable of them will do."""
    assert names(carpool.read(["d.jsonl", "[ab].csv"])) == "dab"
    assert names(carpool.read(path for path in (Path("c.csv"), "a.csv"))) == "ca"


def test_it_can_be_read_again(folder: Path) -> None:
    """Each iter() reads anew, also while another is under way."""
    items = carpool.read("[ab].csv")
    assert list(items) == list(items)
    one, other = iter(items), iter(items)
    assert next(one) == next(other) == {"name": "a"}
    assert names(one) == names(other) == "b"


def test_files_are_opened_when_it_is_their_turn(folder: Path) -> None:
    """A file that is changed between the call and its turn is read as it is by then."""
    items = carpool.read("[ab].csv")
    Path("b.csv").write_text("name\nnew\n")
    iterator = iter(items)
    Path("a.csv").write_text("name\nlater\n")
    assert names(iterator) == "laternew"


def test_a_file_that_has_gone_is_a_source_error(folder: Path) -> None:
    """A file removed after the call is named."""
    items = carpool.read("a.csv")
    Path("a.csv").unlink()
    with pytest.raises(SourceError, match=r"^a\.csv: can't be opened: No such file"):
        list(items)


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    """A glob finds the link; that its file is gone is said at once."""
    Path("x.csv").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"'x\.csv' can't be read: No such file"):
        carpool.read("*.csv")


def open_files(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open."""
    found = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link.name for link in found if link.parent == folder]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "json", "parquet", "arrow", "xlsx"])
def test_a_file_is_closed_when_iteration_is_left(ending: str, folder: Path) -> None:
    """Whoever stops early leaves no file open, nor does whoever reads to the end."""
    path = written(folder, ending, [{"name": str(number)} for number in range(5_000)])
    items = iter(carpool.read(path))
    next(items)
    assert open_files(folder) == [path.name]
    items.close()  # type: ignore[attr-defined]
    assert open_files(folder) == []
    list(carpool.read(path))
    assert open_files(folder) == []


ENDINGS = (
    "tsv CSV csv.GZ csv.bz2 csv.xz csv.zst ndjson jsonl.gz json.gz parquet.gz arrow.zst xlsx.bz2"
)


@pytest.mark.parametrize("ending", ENDINGS.split())
def test_the_ending_says_what_it_is(ending: str, folder: Path) -> None:
    """Each format is known by its ending, in either case, each also compressed."""
    rows = [{"name": "ä", "town": "Łódź, 1"}, {"name": "b", "town": ""}]
    expected = [dict(rows[0]), dict(rows[1])]
    if "xlsx" in ending:
        expected[1]["town"] = None  # type: ignore[assignment]
    assert list(carpool.read(written(folder, ending, rows))) == expected


def test_format_goes_before_the_ending(folder: Path) -> None:
    """format= is for odd endings; the compression may still be told by the name."""
    written(folder, "csv.gz", [{"name": "x"}]).rename("odd")
    assert names(carpool.read("odd", format="csv.gz")) == "x"
    Path("odd").rename("odd.gz")
    assert names(carpool.read("odd.gz", format=".CSV")) == "x"


def test_a_dot_in_a_name_is_no_ending(folder: Path) -> None:
    """Only the last endings count."""
    Path("a.json.2026.csv").write_text("name\nx\n")
    assert names(carpool.read("a.json.2026.csv")) == "x"


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ("nowhere.csv", {}, "no file 'nowhere.csv'. Is the path right, seen from"),
    ("", {}, "can't be told"),
    ("x*.csv", {}, "No file matches"),
    ([], {}, "empty list"),
    (".", {"format": "csv"}, "is a folder. Name the files in it"),
    ("odd", {}, 'can\'t be told from its name. Say it, with format="csv"'),
    ("odd.gz", {}, "can't be told"),
    ("-", {}, "What is in stdin can't be told"),
    ("a.csv", {"format": "excel"}, "format='excel' is unknown. Known: csv, tsv,"),
    ("a.csv", {"format": "csv.rar"}, "is unknown"),
    ("a.csv", {"format": 5}, "is unknown"),
    (5, {}, "5 is no path"),
    (b"a.csv", {}, "is no path"),
    ([Path("a.csv"), None], {}, "None is no path"),
    (io.StringIO("a.csv"), {}, "What is open already needs no read()"),
    (["a.csv", "*.csv"], {}, "'a.csv' is named twice"),
    ("a\0.csv", {}, "no file"),
    ("a" * 5000 + ".csv", {}, "File name too long"),
    ("a.csv", {"sheet": "x"}, "sheet= is for xlsx, and what is to be read is csv"),
    ("d.jsonl", {"columns": ["a"]}, "columns= is for csv, tsv, xlsx"),
    ("a.csv", {"allow_nan": True}, "allow_nan= is for jsonl, ndjson, json"),
    ("a.csv", {"encoding": "klingon"}, "encoding='klingon' is not one"),
    ("a.csv", {"encoding": "hex"}, "is not one that Python can decode text with"),
    ("d.jsonl", {"encoding": 5}, "is not one"),
    ("a.csv", {"columns": "name"}, "must be a list of names"),
    ("a.csv", {"columns": []}, "must be a list of names"),
    ("a.csv", {"columns": [1]}, "must be a list of names"),
    ("a.csv", {"columns": ["a", "a"]}, "columns names 'a' twice"),
    ("a.csv", {"delimiter": ";;"}, "The csv module refuses delimiter=';;'"),
    ("a.csv", {"quotechar": "''"}, "quotechar"),
    ("a.csv", {"dialect": "martian"}, "dialects are excel"),
    ("a.csv", {"dialect": 5}, "dialect=5 is no dialect. Name one (excel"),
]


@pytest.mark.parametrize(("path", "options", "message"), REFUSED, ids=map(str, range(99)))
def test_what_cannot_work_is_refused_at_once(
    path: Any, options: dict[str, Any], message: str, folder: Path
) -> None:
    """What can be known without reading is said by the call, with the cause and the remedy."""
    for name in ("odd", "odd.gz"):
        Path(name).touch()
    with pytest.raises(ConfigurationError) as caught:
        carpool.read(path, **options)
    assert message in str(caught.value)


def test_permission_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operating system says of it is believed."""
    monkeypatch.setattr(os, "access", lambda name, mode: False)
    with pytest.raises(ConfigurationError, match="no permission"):
        carpool.read("a.csv")


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_library_is_refused_with_its_extra(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names what to install, before anything is read."""
    module, extra = EXTRAS[name]
    Path(name).touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError) as caught:
        carpool.read(name)
    assert f'pip install "django-carpool[{extra}]"' in str(caught.value)


def test_carpool_imports_no_library_that_not_everybody_needs() -> None:
    """Optional libraries, and the modules of compressions, are imported when they are needed."""
    done = python(
        "import sys, carpool\n"
        "print({'pyarrow', 'openpyxl', 'backports.zstd', 'compression.zstd'} & {*sys.modules})"
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_the_repr_is_the_call(folder: Path) -> None:
    """What is read, and how, is seen in a shell or a log."""
    assert repr(carpool.read("a.csv")) == "<carpool.read('a.csv')>"
    assert (
        repr(carpool.read("*.csv", format="csv", delimiter=";"))
        == "<carpool.read('*.csv', format='csv', delimiter=';'): 3 files>"
    )


def test_a_source_error_travels() -> None:
    """file, line and column arrive in another process, and so does a report set later."""
    error = SourceError("no", None, "a.csv", 3, "name")
    there = pickle.loads(pickle.dumps(error))
    assert (there.file, there.line, there.column) == ("a.csv", 3, "name")
    assert str(there) == str(error) == "a.csv, line 3, column name: no"
    assert there.message == "no"
    assert str(SourceError("no", file="a.csv")) == "a.csv: no"
