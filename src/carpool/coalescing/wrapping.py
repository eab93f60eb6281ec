"""Execute wrappers of the user's own: each row passes those that are there when it is saved.

``with connection.execute_wrapper(…):`` inside of a block means what is sent in there, and nothing
else: pgtrigger's ``ignore()`` and pghistory's ``context()`` tell the database's triggers so. What
is queued is written before it, and inside of it nothing is queued.

A wrapper that is around the whole block sees the queue's statements. It does not see COPY, so there
is none then (`writers.Copy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from carpool.coalescing.figures import EarlyFlush, place

if TYPE_CHECKING:
    from carpool.coalescing.unit import Unit


def minding(unit: Unit) -> Callable[[Any], AbstractContextManager[None]]:
    """Return what stands in for ``execute_wrapper()`` of a unit's connection."""
    connection = unit.connection
    original = connection.execute_wrapper

    @contextmanager
    def execute_wrapper(wrapper: Any) -> Iterator[None]:
        if _is_ours(wrapper) or connection.needs_rollback:  # Django refuses what is sent then
            with original(wrapper):
                yield
            return
        unit.flush(EarlyFlush("an execute wrapper", place()))
        with unit.suspended(), original(wrapper):
            yield

    return execute_wrapper


def is_wrapped(connection: Any) -> bool:
    """Tell whether somebody else's wrapper wants to see each statement."""
    return not all(map(_is_ours, connection.execute_wrappers))


def _is_ours(wrapper: Any) -> bool:
    return str(getattr(wrapper, "__module__", "")).startswith("carpool.")
