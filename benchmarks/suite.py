"""A suite: labelled rows, each a small function, in the order in which they are shown."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.workload import Workers

Group = Literal["reference", "pool", "carpool", "other ORM", "no signals"]


@dataclass(frozen=True)
class Task:
    """What a row is to do: call `function` for each of `items()`, with `workers` workers.

    `chunk_size` is for rows of `carpool.run` that ask for it; None: as it paces itself.

    A row that makes its objects itself calls `setup` before each of them instead.
    """

    function: Callable[[Any], Any]
    setup: Callable[[], None]
    source: Callable[[int], Iterable[Any]]
    rows: int
    workers: int
    chunk_size: int | None = None

    def items(self) -> Iterable[Any]:
        """Return the items afresh: an iterator, or a queryset that hasn't been read."""
        return self.source(self.rows)


@dataclass(frozen=True)
class Row:
    """One way to do a task, under the label that the table shows."""

    key: str
    label: str
    run: Callable[[Task], None]
    group: Group
    workers: Workers
    needs: tuple[str, ...]
    vendor: str | None
    prepare: Callable[[], object] | None

    def missing(self) -> list[str]:
        """Return the packages that this row needs and that are not installed."""
        return [name for name in self.needs if not is_installed(name)]


def is_installed(name: str) -> bool:
    """Whether a package can be imported. A bare folder of that name does not count."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


@dataclass
class Suite:
    """A named list of rows."""

    name: str
    rows: dict[str, Row] = field(default_factory=dict)

    def row(
        self,
        label: str,
        *,
        group: Group,
        workers: Workers = None,
        needs: Iterable[str] = (),
        vendor: str | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> Callable[[Callable[[Task], None]], Callable[[Task], None]]:
        """Add the decorated function as a row. Its name is the row's key.

        `workers` is what kind of workers it has ("processes" and "threads" as many as the
        workload says), or their number. `needs` are packages without which it is shown as not
        installed. `vendor` is the only database it can use; on others it isn't shown. `prepare` is
        called before the clock runs, for what Django has behind it by then: imports, a connection.
        """

        def add(run: Callable[[Task], None]) -> Callable[[Task], None]:
            self.rows[run.__name__] = Row(
                run.__name__, label, run, group, workers, tuple(needs), vendor, prepare
            )
            return run

        return add
