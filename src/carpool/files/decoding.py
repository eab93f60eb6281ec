"""JSON values, decoded by the standard library; NaN is refused, and errors have a place."""

from __future__ import annotations

import json
import re

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)', re.DOTALL)


class NotJSON(ValueError):
    """NaN, Infinity or -Infinity was met."""


def decoder(*, allow_nan: bool) -> json.JSONDecoder:
    """Return a decoder; if NaN and the infinities aren't allowed, they raise `NotJSON`."""
    return json.JSONDecoder() if allow_nan else json.JSONDecoder(parse_constant=_refuse)


def explained(error: Exception, text: str, begin: int = 0) -> tuple[str, int]:
    """Return what is wrong with the value that begins at ``text[begin]``, and the place of it."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg, error.pos
    if isinstance(error, NotJSON):
        place = next((m.start(1) for m in _TOKENS.finditer(text, begin) if m[1]), begin)
        return (
            f"{error} is not JSON. Pass allow_nan=True to get it as a float; databases mostly "
            "refuse those"
        ), place
    if isinstance(error, RecursionError):
        return "the value is nested too deeply", begin
    return str(error), begin


def _refuse(name: str) -> None:
    raise NotJSON(name)
