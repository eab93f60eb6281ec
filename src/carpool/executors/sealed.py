"""What crosses a broker: compressed, as text that JSON takes, and signed with SECRET_KEY.

Chunks and their results are pickles, and whoever can have a pickle loaded can run any code. So
nothing is loaded that has not been signed by a process with the project's key: to be able to write
to the broker is not enough. The signature covers what the text is for, a certain task's request or
its answer, so that one can't be passed off as another.
"""

from __future__ import annotations

import base64
import zlib

from django.conf import settings
from django.utils.crypto import constant_time_compare, salted_hmac

_SALT = "carpool.executors.sealed"

_PLAIN, _COMPRESSED = b"p", b"z"

WORTH_COMPRESSING = 512
"""Bytes from which on a pickle is compressed, at zlib's fastest level: rows become a third or less,
at 10 ms a MiB."""


class BadSeal(Exception):
    """The text was not signed with this project's SECRET_KEY, or not for this purpose."""


def seal(data: bytes, purpose: str) -> str:
    """Return the data as text, signed."""
    if len(data) >= WORTH_COMPRESSING:
        body = _COMPRESSED + zlib.compress(data, 1)
    else:
        body = _PLAIN + data
    return f"{_signature(body, purpose, settings.SECRET_KEY)}:{base64.b64encode(body).decode()}"


def unseal(text: str, purpose: str) -> bytes:
    """Return the data.

    Raises:
        BadSeal: it was not signed with this SECRET_KEY (or one of SECRET_KEY_FALLBACKS), or for
            another purpose.
    """
    signature, _, encoded = text.partition(":")
    try:
        body = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise BadSeal("it is not what carpool sends") from error
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    if not any(constant_time_compare(signature, _signature(body, purpose, key)) for key in keys):
        raise BadSeal(
            "it was not signed with this process' SECRET_KEY: coordinator and workers must have "
            "the same, or somebody else writes to the broker"
        )
    data = body[1:]
    return zlib.decompress(data) if body[:1] == _COMPRESSED else data


def _signature(body: bytes, purpose: str, key: str | bytes) -> str:
    return salted_hmac(f"{_SALT} {purpose}", body, secret=key, algorithm="sha256").hexdigest()
