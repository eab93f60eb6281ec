"""The arguments of ``manage.py carpool``. Their names are those of `run` and `read`."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser, DjangoHelpFormatter

EXAMPLES = """\
examples:
  carpool run shop.imports.create_order orders.csv.gz --workers 4 --rejects failed.jsonl
  carpool run shop.imports.create_order orders.csv.gz --journal orders-nov
  carpool run shop.jobs.reprice --queryset "shop.Order:state=open,total__gt=100"
  carpool run shop.Order orders.csv --map "Customer E-mail=customer__email"
  carpool run shop.imports.create_order - --format jsonl.gz < orders.jsonl.gz

exit codes: 0 all items succeeded; 1 some failed; 2 the run can't begin, or can't go on;
130 interrupted (Ctrl-C)
"""

OF_READ = (
    "format",
    "encoding",
    "columns",
    "dialect",
    "delimiter",
    "quotechar",
    "sheet",
    "allow_nan",
    "unwrap_rejects",
)
"""Arguments that are `read`'s."""

OF_RUN = (
    "executor",
    "workers",
    "start_method",
    "using",
    "chunk_size",
    "retries",
    "timeout",
    "on_error",
    "max_failures",
    "rejects",
    "dry_run",
    "coalesce",
    "lock",
    "journal",
    "retry_failed",
    "take_over",
    "ignore_changed_source",
)
"""Arguments that are passed to `run` as they are."""

OF_BENCH = ("sample", "seconds", "workers", "start_method", "using", "coalesce", "lock")
"""Arguments that are passed to `bench` as they are."""

EXAMPLES_OF_BENCH = """\
examples:
  carpool bench shop.imports.create_order orders.csv.gz --plot bench.png
  carpool bench shop.jobs.reprice --queryset "shop.Order:state=open" --sample 2000 --seconds 30

exit codes: 0 all items succeeded; 1 some failed; 2 nothing could be measured; 130 interrupted
"""


class _Formatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Django's, which leaves the examples as they are."""


class _Parser(CommandParser):
    """Takes files after options, too: ``run shop.create --workers 4 orders.csv``."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # On Python 3.11 parse_known_intermixed_args() calls this method in its turn.
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their arguments. What was not given is None."""
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=_Parser
    )

    def add(name: str, help: str, **more: Any) -> argparse.ArgumentParser:  # noqa: A002
        action = actions.add_parser(
            name, help=help, description=help, formatter_class=_Formatter, **more
        )
        _add_common(action)
        return action

    _add_run(add("run", "Call a function, or save a model, once for each item.", epilog=EXAMPLES))
    what = "Measure what pool is worth it: a sample, run in several ways and rolled back."
    _add_bench(add("bench", what, epilog=EXAMPLES_OF_BENCH))
    runs = add("runs", "List the runs in the journal.")
    for name, what in (
        ("show", "Show what the journal knows of a run."),
        ("cancel", "Ask a run to end: chunks in flight finish, no more are begun."),
        ("pause", "Ask a run to wait: chunks in flight finish, no more are begun."),
        ("resume", "Ask a paused run to go on."),
    ):
        action = add(name, what)
        action.add_argument("name", metavar="NAME", help="The run's name.")
        _add_database(action, as_json=name == "show")
    _add_database(runs, as_json=True)


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Take the arguments of every Django command after the action's name, too."""
    unset: Any = argparse.SUPPRESS  # what was given before the action's name stays
    common = parser.add_argument_group("of every command")
    common.add_argument("-v", "--verbosity", type=int, choices=[0, 1, 2, 3], default=unset)
    common.add_argument(
        "--traceback", action="store_true", default=unset, help="Show an error's whole traceback."
    )
    common.add_argument("--no-color", action="store_true", default=unset, help=unset)
    common.add_argument("--force-color", action="store_true", default=unset, help=unset)
    common.add_argument("--skip-checks", action="store_true", default=unset, help=unset)
    common.add_argument("--settings", default=unset, help=unset)
    common.add_argument("--pythonpath", default=unset, help=unset)


def _add_database(parser: argparse.ArgumentParser, *, as_json: bool) -> None:
    parser.add_argument("--database", default="default", help="The journal's; default: default.")
    if as_json:
        parser.add_argument("--json", action="store_true", help="Print JSON.")


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="A function of one item (shop.imports.create_order), or a model (shop.Order).",
    )
    parser.add_argument(
        "sources", metavar="FILE", nargs="*", help="Files and globs to read; - is stdin."
    )
    parser.add_argument(
        "--queryset",
        metavar="APP.MODEL[:FIELD=VALUE,...]",
        help="The rows of a model instead of files; a value for __in is A|B|C.",
    )
    parser.add_argument(
        "--map",
        dest="mapping",
        action="append",
        metavar="COLUMN=FIELD",
        help="Of a model: the column's field; without a field, the column is left out. Repeatable.",
    )
    parser.add_argument("--json", action="store_true", help="Print the report as JSON.")
    parser.add_argument(
        "--no-progress", action="store_true", help="Show no progress (on stderr, at -v 1 and more)."
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_what(parser)
    parser.add_argument(
        "--dry-run", action="store_true", default=None, help="Run everything and roll it back."
    )
    _add_pool(parser.add_argument_group("workers and transactions"))
    _add_failures(parser.add_argument_group("failures"))
    _add_journal(parser.add_argument_group("journal"))
    _add_files(parser.add_argument_group("files"))


def _add_bench(parser: argparse.ArgumentParser) -> None:
    _add_what(parser)
    parser.add_argument(
        "--sample", type=int, metavar="N", help="Items at most, the first ones; default: 10000."
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="That it may take, about; the sample is cut to what fits; default: 60.",
    )
    parser.add_argument("--plot", metavar="FILE", help="Draw it, as .png or .svg (matplotlib).")
    group = parser.add_argument_group("workers and transactions")
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="The most to try; default: twice the processors, 32 threads if items wait.",
    )
    _add_calls(group)
    _add_files(parser.add_argument_group("files"))


def _add_pool(group: Any) -> None:
    group.add_argument("--executor", choices=["auto", "inline", "threads", "processes", "celery"])
    group.add_argument("--workers", type=int, metavar="N")
    group.add_argument("--chunk-size", type=int, metavar="N", help="Items a transaction.")
    group.add_argument("--retries", type=int, metavar="N")
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="That an item may take.")
    _add_calls(group)


def _add_calls(group: Any) -> None:
    group.add_argument("--start-method", choices=["fork", "forkserver", "spawn"])
    group.add_argument(
        "--setup", metavar="FUNCTION", help="Called in each worker before its first item."
    )
    group.add_argument(
        "--before-chunk",
        metavar="FUNCTION",
        help="Called with a chunk's items; its result is the function's second argument.",
    )
    group.add_argument(
        "--using", action="append", metavar="ALIAS", help="A database to write; repeatable."
    )
    group.add_argument(
        "--no-coalesce",
        dest="coalesce",
        action="store_false",
        default=None,
        help="Send each statement at its place.",
    )
    group.add_argument(
        "--lock", action="store_true", default=None, help="Lock the queryset's rows until COMMIT."
    )


def _add_failures(group: Any) -> None:
    group.add_argument("--on-error", choices=["collect", "raise"], help="raise: stop at the first.")
    group.add_argument("--max-failures", type=int, metavar="N", help="Stop when more have failed.")
    group.add_argument(
        "--rejects", metavar="FILE", help="A new file for failed items; can be read like any other."
    )


def _add_journal(group: Any) -> None:
    group.add_argument(
        "--journal", metavar="NAME", help="Keep a journal; with the same name, do what is left."
    )
    for name, what in (
        ("--retry-failed", "Run those again that failed in an earlier call."),
        ("--take-over", "Take the run from a process that is dead, at once."),
        ("--ignore-changed-source", "Go by positions alone."),
    ):
        group.add_argument(name, action="store_true", default=None, help=what)


def _add_files(group: Any) -> None:
    group.add_argument("--format", help="As the ending of a name: csv, jsonl.gz. Needed for stdin.")
    group.add_argument("--encoding", help="Default: utf-8.")
    group.add_argument(
        "--columns", metavar="A,B,C", help="The columns' names, if the first row hasn't them."
    )
    group.add_argument("--dialect", help="Of CSV: excel, excel-tab, unix.")
    group.add_argument("--delimiter", help="Of CSV; \\t is a tab.")
    group.add_argument("--quotechar", help='Of CSV; "" for none.')
    group.add_argument("--sheet", help="Of Excel; default: the first.")
    group.add_argument("--allow-nan", action="store_true", default=None, help="Of JSON.")
    group.add_argument(
        "--no-unwrap-rejects",
        dest="unwrap_rejects",
        action="store_false",
        default=None,
        help="Give a rejects file's lines, not its items.",
    )


def given(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the arguments that were given, for a call by keyword."""
    return {name: options[name] for name in names if options[name] is not None}
