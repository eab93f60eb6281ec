"""The runner of the tests: what it counts, and that nothing that went wrong looks like a pass."""

from __future__ import annotations

import os
import threading

import pytest

from tests.waiting import wait_until
from tools import suite
from tools.suite import Run, run_side_by_side


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run pytest as the suite does, without this project's settings, on a file with this code."""
    monkeypatch.setattr(suite, "GRACE", 0.5)

    def run_code(code, *, may_be_empty=False):
        path = tmp_path / "test_it.py"
        path.write_text(code)
        options = ["-c", os.devnull, "-p", "no:django", "-p", "no:cacheprovider", "--rootdir"]
        arguments = [*options, str(tmp_path), str(path)]
        runs = [Run("it", arguments, os.environ, may_be_empty=may_be_empty)]
        return dict(run_side_by_side(runs, 1))["it"]

    return run_code


def test_everything_is_counted_and_a_skip_keeps_its_reason(run):
    counts = run(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert False\n"
        "def test_is_skipped(): pytest.skip('no time')\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_has_an_error(broken): pass\n"
    )
    assert str(counts) == "1 passed, 2 failed, 1 skipped"
    assert "no time" in next(iter(counts.reasons))


@pytest.mark.parametrize(
    "code",
    ["", "import nothing_of_that_name", "import pytest\ndef test_it(): pytest.skip()"],
    ids=["no test", "no import", "all skipped"],
)
def test_a_run_that_executes_no_test_fails(run, code):
    assert run(code).failed == 1


def test_no_test_selected_is_no_failure_where_the_caller_selects(run):
    assert run("", may_be_empty=True).failed == 0


def test_a_run_that_dies_fails(run):
    assert run("import os\ndef test_it(): os.kill(os.getpid(), 9)").failed == 1


def test_a_run_that_hangs_is_ended_with_its_stacks(run, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(suite, "GRACE", 10.0)
    monkeypatch.setattr(suite, "LIMIT", 300.0)

    def end_it():
        wait_until((tmp_path / "hangs").exists)
        suite.LIMIT = 0.0

    ending = threading.Thread(target=end_it)
    ending.start()
    code = (
        "import pathlib, time\ndef test_that_hangs():\n"
        f"    pathlib.Path({str(tmp_path / 'hangs')!r}).touch()\n    time.sleep(600)"
    )
    assert run(code).failed == 1
    ending.join()
    assert "in test_that_hangs" in capfd.readouterr().err


def test_a_process_left_behind_fails_the_run(run, capfd):
    code = (
        "import subprocess\ndef test_it():\n    global p\n"
        "    p = subprocess.Popen(['sleep', '600'])"
    )
    assert run(code).failed == 1
    assert "sleep 600" in capfd.readouterr().out


def test_a_database_left_out_fails_only_where_it_must_be_there(capsys, monkeypatch):
    monkeypatch.delenv("CARPOOL_TEST_COUNTS", raising=False)
    results = {"sqlite": suite.Counts(passed=3)}
    left_out = {"mysql": "no server"}
    assert suite.sum_up(results, left_out, must_have=False) == 0
    out = capsys.readouterr().out
    assert "LEFT OUT: everything on mysql: no server" in out
    assert out.endswith("\n3 passed, 0 failed, 0 skipped\n")
    assert suite.sum_up(results, left_out, must_have=True) == 1


def test_runs_side_by_side_are_all_counted_and_shown_one_after_another(tmp_path, capfd):
    options = ["-c", os.devnull, "-p", "no:django", "-p", "no:cacheprovider", "-s", "--rootdir"]
    runs = []
    for name in ("one", "two", "three"):
        path = tmp_path / f"test_{name}.py"
        path.write_text(f"def test_it():\n    print('begin {name}')\n    print('end {name}')\n")
        runs.append(Run(name, [*options, str(tmp_path), str(path)], os.environ))

    results = dict(run_side_by_side(runs, 2))

    assert {name: counts.passed for name, counts in results.items()} == dict.fromkeys(results, 1)
    assert results.keys() == {"one", "two", "three"}
    out = capfd.readouterr().out
    assert all(f"begin {name}\nend {name}\n" in out for name in results)


def test_runs_on_one_database_come_one_after_another(tmp_path):
    """A run that waits for its database lets others pass."""
    options = ["-c", os.devnull, "-p", "no:django", "-p", "no:cacheprovider", "--rootdir"]
    log = tmp_path / "log"
    runs = []
    for name, database in [("a", "x"), ("b", "x"), ("c", "y"), ("d", None)]:
        path = tmp_path / f"test_{name}.py"
        missing = "set('cd') - set(log.read_text())" if name == "a" else "False"
        path.write_text(
            f"import pathlib, time\nlog = pathlib.Path({str(log)!r})\n"
            "def note(word):\n    with log.open('a') as file:\n        file.write(word)\n"
            f"def test_it():\n    note({name!r})\n    ends = time.monotonic() + 60\n"
            f"    while {missing} and time.monotonic() < ends: time.sleep(0.05)\n"
            f"    note({name.upper()!r})\n"
        )
        arguments = [*options, str(tmp_path), str(path)]
        runs.append(Run(name, arguments, os.environ, database=database))

    results = dict(run_side_by_side(runs, 3))

    assert results.keys() == set("abcd")
    words = log.read_text()
    assert words.index("A") < words.index("b")
    assert words.index("c") < words.index("A") and words.index("d") < words.index("A")


def test_the_numbers_are_appended_to_the_file_that_the_caller_names(tmp_path, monkeypatch):
    monkeypatch.setenv("CARPOOL_TEST_COUNTS", str(tmp_path / "counts"))

    suite.sum_up({"sqlite": suite.Counts(passed=3, skipped=2)}, {}, must_have=True)
    suite.sum_up({"sqlite": suite.Counts(passed=1, failed=1)}, {}, must_have=True)

    assert (tmp_path / "counts").read_text() == "3 0 2\n1 1 0\n"


def test_tests_do_not_write_into_the_callers_file(monkeypatch):
    monkeypatch.setenv("CARPOOL_TEST_COUNTS", "counts")
    assert all(not run.environment["CARPOOL_TEST_COUNTS"] for run in suite.plan(["sqlite"], [], {}))


def test_tests_compile_what_they_import_once(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    runs = suite.plan(["sqlite"], [], {})
    assert all("PYTHONDONTWRITEBYTECODE" not in run.environment for run in runs)


def test_each_test_is_in_one_run_on_each_database():
    urls = {"postgres": "postgres://", "mysql": "mysql://"}
    runs = suite.plan(["sqlite", *urls], [], urls)
    assert [run.label for run in runs] == [
        *suite.DATABASES,
        *(f"{name}, programs" for name in suite.DATABASES),
        "unit",
    ]
    for run in runs:
        paths = {argument for argument in run.arguments if not argument.startswith("--ignore=")}
        left_out = {argument.partition("=")[2] for argument in run.arguments} - {""}
        if run.label in suite.DATABASES:
            assert paths == {"tests"}
            assert left_out == {"tests/unit", "tests/cluster", *suite.PROGRAMS}
        elif run.label != "unit":
            assert paths == set(suite.PROGRAMS)
    ignoring = suite.plan(["sqlite"], ["--ignore=tests/torment"], {})
    assert "tests/torment" not in ignoring[1].arguments
    none = suite.plan(["sqlite"], [f"--ignore={path}" for path in suite.PROGRAMS], {})
    assert [run.label for run in none] == ["sqlite", "unit"]
    (chosen,) = suite.plan(["sqlite"], ["tests/coalesce", "-k", "x"], {})
    assert chosen.arguments == ["tests/coalesce", "-k", "x"]
