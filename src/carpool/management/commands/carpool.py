"""``manage.py carpool``: parse, call, print."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

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
        if options["verbosity"] and not options["skip_checks"]:
            for message in checks.messages():
                self.stderr.write(message, lambda text: text)
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
        return lambda line: self.stderr.write(line, lambda text: text)

    def _print(self, text: str) -> None:
        """Print to stdout; whoever has read it may have gone, and the work is done all the same."""
        try:
            try:
                self.stdout.write(text)
            except UnicodeEncodeError:  # an encoding that has no ×
                self.stdout.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            self.stdout.flush()
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.stderr.write(f"The report can't be printed: {error}")
            # Or Python would say so again when it flushes stdout at its end (its manual, "Note on
            # SIGPIPE").
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _end(self, end: End, options: dict[str, Any]) -> None:
        """Say what is to be said, and end with the code."""
        from_line = getattr(self, "_called_from_command_line", False)
        if end.code is Exit.INTERRUPTED:
            if not from_line:
                assert end.error is not None
                raise end.error
            if end.message is not None:
                self.stderr.write(end.message)
            sys.exit(end.code)
        if end.code is Exit.WELL:
            return
        if from_line and options["traceback"] and end.error is not None:
            traceback.print_exception(end.error)
            sys.exit(end.code)
        raise CommandError(end.message, returncode=int(end.code)) from end.error
