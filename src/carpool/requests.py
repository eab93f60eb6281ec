"""Notices that a run is called during a request, and warns if it would start workers there.

By the stack of the calling thread: whatever serves a request, the test client's handler too, calls
``get_response()`` of Django's `BaseHandler`. If that is on the stack, this is during a request;
nothing else can put it there, so a command, a task's worker or a test is never mistaken for one.

A view that runs in another thread than its handler (a sync view under ASGI, an async view under
WSGI, ``sync_to_async()``) has asgiref's frames on its stack instead, and the context of its
handler, in which a URLconf is set. Why not signals: docs/decisions/0011-requests.md.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from django.urls import get_urlconf

from carpool.exceptions import DuringRequest

# BaseHandler.get_response(), get_response_async(): what each handler calls for a request. Known by
# their names, since tools that trace requests replace the methods. Checked on 5.2, 6.0, 6.1.
_HANDLER = "django.core.handlers.base"
_ANSWERS = frozenset({"get_response", "get_response_async"})

_HOP = "asgiref.sync"
"""The module whose frames begin the stack of sync code called by async code, and the reverse."""

_NOT_THE_USERS = ("carpool", "django.core.management")
"""Packages whose frames between a view and a run are no place to point at."""

MESSAGE = (
    "A run with workers was started during a request. Whoever made the request waits for all of "
    "it, and a web server may end it at any moment. Enqueue a task, and call run() in that: "
    "django.tasks, or the package django-tasks on Django 5.2. For few items "
    'executor="inline" will do.'
)


@dataclass(slots=True)
class Watch:
    """Remembers the line that called for a run during a request; warns once, if at all."""

    place: _Place | None

    @classmethod
    def here(cls) -> Watch:
        """Look at this thread's stack."""
        frame = sys._getframe(1)
        return cls(_Place.of(frame) if is_in_request(frame) else None)

    def warn(self) -> None:
        """Say that workers are started, if this is during a request."""
        place, self.place = self.place, None
        if place is not None:
            warnings.warn_explicit(
                MESSAGE,
                DuringRequest,
                place.filename,
                place.line,
                module=place.module,
                registry=place.registry,
            )


@dataclass(frozen=True, slots=True)
class _Place:
    """What `warnings` wants to know of a line."""

    filename: str
    line: int
    module: str
    registry: dict[Any, Any]

    @classmethod
    def of(cls, frame: FrameType) -> _Place:
        """Return the innermost line that is neither carpool's nor that of its command."""
        users = next((f for f in _stack(frame) if not _is_ours(f)), frame)
        names = users.f_globals
        return cls(
            users.f_code.co_filename,
            users.f_lineno,
            names.get("__name__", "<unknown>"),
            names.setdefault("__warningregistry__", {}),
        )


def is_in_request(frame: FrameType) -> bool:
    """Tell whether the frame belongs to a request that is being answered."""
    hopped = False
    for outer in _stack(frame):
        module = outer.f_globals.get("__name__")
        if module == _HANDLER and outer.f_code.co_name in _ANSWERS:
            return True
        hopped = hopped or module == _HOP
    return hopped and get_urlconf() is not None


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_ours(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return any(module == name or module.startswith(f"{name}.") for name in _NOT_THE_USERS)
