"""``manage.py carpool``: parse, call, print."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser

from carpool import checks
from carpool.command import benching, runs
from carpool.command.arguments import add_arguments
from carpool.command.output import json_of, text_of
from carpool.command.running import End, Exit, perform
from carpool.exceptions import ConfigurationError


class Command(BaseCommand):
    """Runs or measures a function, or a model, on files or a queryset; and sees to journals."""

    help = (
        "Call any function once for each item of files or of a queryset, in a pool of workers; "
        "measure what pool is worth it; and see to the runs in the journal."
    )
    requires_system_checks = [checks.TAG]  # noqa: RUF012 -- as BaseCommand has it

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it.

        Raises:
            CommandError: something did not succeed; ``returncode`` is the exit code.
        """
        if options["action"] not in ("run", "bench"):
            try:
                self._print(runs.perform(options["action"], options))
            except ConfigurationError as error:
                self._end(End(Exit.BROKEN_OFF, message=str(error), error=error), options)
            return
        if options.get("journal") is not None and not options["skip_checks"]:
            errors = checks.journal_errors(options["using"] or ["default"])
            if errors:
                self._end(End(Exit.BROKEN_OFF, message=" ".join(errors)), options)
                return
        if options["verbosity"] and not options["skip_checks"]:
            processes = options.get("executor") not in ("inline", "threads")
            for message in checks.messages(processes=processes):
                self._say(message, lambda text: text)
        if options["action"] == "bench":
            end = benching.perform(options, self._teller(options))
            if end.text is not None:
                self._print(end.text)
            self._end(end, options)
            return
        end = perform(options)
        if end.report is not None:
            if options["json"]:
                self._print(json_of(end.report, end.total, end.message))
            elif end.code is not Exit.INTERRUPTED:  # then it's on stderr
                self._print(text_of(end.report, end.total))
        self._end(end, options)

    def _teller(self, options: dict[str, Any]) -> Callable[[str], Any]:
        """Return what writes lines of progress, if they are wanted."""
        if options["no_progress"] or not options["verbosity"]:
            return lambda line: None
        return lambda line: self._say(line, lambda text: text)

    def _print(self, text: str) -> None:
        """Print to stdout; whoever has read it may have gone, and the work is done all the same."""
        if sys.stdout is None and self._is_a_program():  # closed, by a shell's >&-
            return
        try:
            try:
                self.stdout.write(text)
            except UnicodeEncodeError:  # an encoding that has no ×
                self.stdout.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            self.stdout.flush()
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self._say(f"The report can't be printed: {error}")
            _let_go(sys.stdout)

    def _say(self, text: str = "", style: Callable[[str], str] | None = None) -> None:
        """Print to stderr. Nobody may be there to hear it, which is no reason to end otherwise.

        Without a text: find out whether what has been printed before could be.
        """
        if sys.stderr is None and self._is_a_program():
            return
        try:
            if text:
                self.stderr.write(text, style)
            self.stderr.flush()
        except OSError:
            _let_go(sys.stderr)

    def _is_a_program(self) -> bool:
        """Tell whether this is a process of its own, and not a call from Python."""
        # Private to Django, which sets it in run_from_argv(); checked on 5.2, 6.0 and 6.1.
        return getattr(self, "_called_from_command_line", False)

    def _end(self, end: End, options: dict[str, Any]) -> None:
        """Say what is to be said, and end with the code."""
        if not self._is_a_program():
            if end.code is Exit.INTERRUPTED:
                assert end.error is not None
                raise end.error
            if end.code is not Exit.WELL:
                raise CommandError(end.message, returncode=int(end.code)) from end.error
            return
        if options["traceback"] and end.error is not None and end.code is not Exit.INTERRUPTED:
            self._say("".join(traceback.format_exception(end.error)), lambda text: text)
        elif end.message is not None:
            # As Django says a CommandError, which it can't if stderr is closed.
            prefix = "" if end.code is Exit.INTERRUPTED else f"{CommandError.__name__}: "
            self._say(prefix + end.message)
        else:
            self._say()
        if end.code is not Exit.WELL:
            sys.exit(end.code)


def _let_go(stream: TextIO) -> None:
    """Give up a stream that takes nothing, or Python would try again, and say so, at its end.

    Its manual, "Note on SIGPIPE", has it.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
