"""The unit of work of one connection: the hooks that keep its queue unseen, and the flush.

The hooks are attributes of the one connection object, put there for the time of the block and
taken away after it:

- ``ops.compiler``: the backend's compilers, which offer INSERTs and UPDATEs to the queue;
- ``execute_wrappers``: every statement passes the barrier, which writes the queue first if the
  statement may see it;
- ``make_cursor``, ``make_debug_cursor``: callproc() and COPY pass by execute wrappers;
- ``execute_wrapper``: see `wrapping`;
- the methods that begin and roll back the transaction and its savepoints: see `transaction`.

Note [Broken]
    After a flush that was refused, nothing can be sent until its savepoint is undone, and
    everything is refused as Django does after an error. But Django's own mark for that would not
    do: code may expect an IntegrityError of an inner block, and catch what the flush before that
    block's savepoint raises, an error of rows that are not the block's; Django would then roll
    back whatever is around it without a word. So the error is kept, and raised again where the
    block that the rows belong to ends; even if Django has marked that block because of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.db import DataError, IntegrityError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql import DeleteQuery, InsertQuery, UpdateQuery
from django.db.transaction import TransactionManagementError

from carpool.coalescing import barrier, cursors, late, saving, wrapping
from carpool.coalescing.changes import Changes
from carpool.coalescing.compilers import Compilers
from carpool.coalescing.figures import EarlyFlush, Figures, place
from carpool.coalescing.flushing import Flusher, RowIsGone
from carpool.coalescing.inserts import Inserts
from carpool.coalescing.isolating import Isolator
from carpool.coalescing.keys import Keys, keys_for
from carpool.coalescing.knowledge import Knowledge
from carpool.coalescing.plans import Plans
from carpool.coalescing.queue import Queue, forget_refused, give_no_keys, with_new_rows
from carpool.coalescing.registry import register, unregister
from carpool.coalescing.rows import Shape
from carpool.coalescing.shapes import NewRow
from carpool.coalescing.transaction import Transaction
from carpool.coalescing.updating import updater_for
from carpool.coalescing.values import MISSING
from carpool.coalescing.writers import writer_for

_plain_tables: WeakKeyDictionary[BaseDatabaseWrapper, dict[str, bool]] = WeakKeyDictionary()


class Executed(NamedTuple):
    """What a statement has done: rows matched, and the last row's id (psycopg tells none)."""

    matched: int
    last_id: Any


class Unit:
    """A connection's unit of work.

    Between `installed` and its end, what is queued belongs to the connection's open transaction.
    `tag` names whose the rows are that are queued now, for one who wants to drop them (`drop`) or
    to know whose a refused row was (`refused`, with ``isolates``). ``reserved``: the `keys` of an
    earlier unit on this connection.

    Attributes:
        queue: what waits to be written.
        transaction: what of the transaction was not sent yet.
        inserts, changes: what puts rows into the queue.
        plans: how objects are saved, by class.
        keys: what reserves keys, with those that are left; None where none can be reserved.
        is_suspended: nothing is queued.
        writes_as_django: nobody has patched what executes INSERTs and UPDATEs: see `compilers`.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        *,
        isolates: bool = False,
        reserved: Keys | None = None,
    ) -> None:
        self.connection = connection
        self.isolates = isolates
        self.statement: Any = None  # the compiler whose statement is being executed
        self.tag: Hashable = None
        self.written: set[Hashable] = set()  # tags with rows in the database, or SQL of their own
        self.refused: dict[Hashable, Exception] = {}
        self.broken: BaseException | None = None  # see Note [Broken]
        self.lowest: dict[str, int] = {}  # by table, the lowest reserved key that was written
        self.auto_increment: int | None = None
        self._knowledge = Knowledge()
        self.queue = Queue(self._knowledge)
        self._figures: list[Figures] = []
        self._passing = False  # the statements are the unit's own
        self.is_suspended = False
        self.writes_as_django = True
        self.copying = 0.0  # seconds, in COPY, which no wrapper sees
        self._driver: Any = None  # the driver's connection, when first used
        self._lost = False  # it is another by now
        self._arrivals: list[tuple[late.LateKey, Any]] = []
        self.is_writing = False
        self._watched: set[tuple[type[models.Model], str]] = set()
        self.keys = reserved or keys_for(connection)
        self._writer = writer_for(self)
        updater = updater_for(self)
        if self._writer is not None:
            self._flusher = Flusher(self, self._writer, updater)
            self._isolator = Isolator(self, self._flusher)
        if self.keys is not None:
            self.keys.begin(self)
        self.transaction = Transaction(self, self.queue, self._knowledge, self.keys)
        self.inserts = Inserts(self, self.queue, self.keys)
        self.changes = Changes(
            self, self.queue, self.transaction, self._knowledge, can_update=updater is not None
        )
        self.plans = Plans(self)

    @property
    def has_strategy(self) -> bool:
        """Whether anything will be queued on this database."""
        return self._writer is not None

    # The hooks.

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the hooks in place for the block. Open the transaction inside of it."""
        connection = self.connection
        if not self.has_strategy:
            register(connection, self)
            try:
                yield
            finally:
                unregister(connection)
            return
        connection.ensure_connection()
        # Names of BaseDatabaseWrapper and DatabaseOperations, called on the instance: checked on
        # 5.2, 6.0, 6.1.
        compilers = Compilers(self, connection.ops.compiler)
        self.writes_as_django = compilers.are_djangos
        hooks: list[tuple[Any, str, Any]] = [
            (connection.ops, "compiler", compilers),
            (connection, "execute_wrapper", wrapping.minding(self)),
            (connection, "make_cursor", cursors.guarded(connection.make_cursor)),
            (connection, "make_debug_cursor", cursors.guarded(connection.make_debug_cursor)),
            *((connection, name, hook) for name, hook in self.transaction.hooks().items()),
        ]
        with ExitStack() as stack:
            stack.enter_context(saving.kept())
            stack.callback(self._unwatch)
            for thing, name, hook in hooks:
                stack.callback(_put_back, thing, name, vars(thing).get(name, MISSING))
                setattr(thing, name, hook)
            register(connection, self)
            stack.callback(unregister, connection)
            stack.callback(self.queue.discard)
            stack.enter_context(connection.execute_wrapper(self))
            yield

    def _unwatch(self) -> None:
        for model, attname in self._watched:
            late.remove(model, attname)
        self._watched.clear()

    @contextmanager
    def counting(self, figures: Figures) -> Iterator[None]:
        """Count into ``figures`` for the block, besides any that count already."""
        self._figures.append(figures)
        try:
            yield
        finally:
            self._figures = [others for others in self._figures if others is not figures]

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Write what is queued, and execute everything at once for the block."""
        self.flush(EarlyFlush("a run", place()) if self.queue.rows else None)
        before, self.is_suspended = self.is_suspended, True
        try:
            yield
        finally:
            self.is_suspended = before

    # For what puts rows into the queue.

    def takes_rows(self) -> bool:
        """Tell whether rows may be queued just now; if not, Django's own way says why."""
        connection = self.connection
        return not (
            self.is_suspended
            or self.broken is not None
            or connection.needs_rollback
            or (connection.connection is not self._driver and self.has_lost_its_transaction())
        )

    def queued(self) -> None:
        """Take note that a write was put off; if that makes too many, write them."""
        for figures in self._figures:
            figures.queued += 1
        if self.queue.is_full:
            self.flush(None)  # as it should be

    def has_lost_its_transaction(self) -> bool:
        """Tell whether the connection has been closed since; queue no more then."""
        driver = self.connection.connection
        if self._driver is None:
            self._driver = driver
        elif driver is not self._driver:
            self.queue.discard()
            self.transaction.forget()
            self.is_suspended = self._lost = True
        return self._lost

    def watch(self, field: Any) -> None:
        """See to a key's attribute until the block's end: see `late`."""
        entry = (field.model, field.attname)
        if entry not in self._watched:
            late.install(*entry)
            self._watched.add(entry)

    def learn(self, compiler: Any, result: Any) -> None:
        """Take note of what a SELECT has found."""
        if not self.is_suspended:
            self._knowledge.learn(compiler, result)

    # The barrier.

    def __call__(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """See every statement, as an execute wrapper."""
        if self._passing or self.connection.needs_rollback:  # in which case Django refuses it
            return execute(sql, params, many, context)
        self.refuse_if_broken()
        if self.has_lost_its_transaction():
            return execute(sql, params, many, context)
        compiler = self.statement
        if compiler is None:
            reads = _reads(sql)
        else:
            reads = not isinstance(compiler.query, (InsertQuery, UpdateQuery, DeleteQuery))
        if self.queue.rows:
            if compiler is None:
                touched: str | None = "SQL of your own"
            else:
                touched = barrier.touched(compiler, sql, self.queue.tables)
            if touched is not None:
                self.flush(EarlyFlush(touched, place()))
        if not reads:
            self._before_a_write(compiler, sql)
        else:
            self.transaction.before_a_read()
        before, self.statement = self.statement, None
        try:
            return execute(sql, params, many, context)
        finally:
            self.statement = before

    def refuse_if_broken(self) -> None:
        """Refuse what Django would refuse after an error: see Note [Broken]."""
        if self.broken is not None:
            raise TransactionManagementError(
                "Queued rows were refused in the current transaction. You can't execute queries "
                "until the end of the 'atomic' block."
            ) from self.broken

    def _before_a_write(self, compiler: Any, sql: Any) -> None:
        self.transaction.before_a_write()
        self.written.add(self.tag)
        query = None if compiler is None else compiler.query
        if query is None:
            self._knowledge.unknown_sql(sql)
            if self.keys is not None:
                self.keys.forget()
        elif isinstance(query, InsertQuery):
            self._knowledge.inserted(query.get_meta().db_table)
            self._knowledge.forget(query.get_meta().db_table)
            if self.keys is not None:
                self.keys.forget(query.get_meta().db_table)
        elif isinstance(query, DeleteQuery) or any(
            field.primary_key for field, _, _ in query.values
        ):
            self._knowledge.deleted(query.get_meta().concrete_model)
        else:
            self._knowledge.forget(query.get_meta().db_table)

    def before_driver(self) -> None:
        """Write the queue before something that no wrapper sees, on the driver's own cursor."""
        if self._passing or self.connection.needs_rollback:
            return
        self.refuse_if_broken()
        if self.queue.rows:
            self.flush(EarlyFlush("SQL of your own", place()))
        self._before_a_write(None, None)

    # The flush.

    def end(self) -> None:
        """Write what is left, and queue no more: the block is about to commit.

        Its on_commit callbacks, which run with the hooks still in place, are not in the block.
        """
        self.is_suspended = True
        self.write()
        if self.broken is not None:
            raise self.broken
        self.transaction.end()

    def write(self) -> None:
        """Write what is queued, unless the transaction or a savepoint will be rolled back."""
        if self.connection.closed_in_transaction:
            self.queue.discard()
        elif not self.connection.needs_rollback:
            self.flush(None)

    def begin_group(self) -> None:
        """Forget whose rows were written and refused: what is undone from here on is younger."""
        self.written.clear()
        self.refused.clear()
        self.lowest.clear()
        self.drop(None)

    def drop(self, tag: Hashable) -> None:
        """Drop what is queued under one tag, and the memory of an error."""
        self.broken = None
        self.queue.drop(lambda row: row.tag == tag)

    def flush(self, early: EarlyFlush | None, *, marks: bool = True) -> None:
        """Write what is queued.

        Args:
            early: why now, if it is not the end.
            marks: if the database refuses, hold the transaction for broken: see Note [Broken].

        Raises:
            DatabaseError: a row was refused, and what was queued is dropped; or SQLite's lock was
                not to be had, and it is still queued.
        """
        if not self.queue.rows:
            return
        if not self.connection.in_atomic_block:  # its transaction has ended without us: closed
            self.queue.discard()
            return
        self.transaction.begin()
        for figures in self._figures:
            figures.flushes += 1
            if early is not None:
                figures.early[early] += 1
        tables = self.queue.clear()
        self.is_writing = True
        try:
            with self.own_statements():
                for part in self.transaction.parts_by_savepoint(tables):
                    if self.isolates:
                        self._isolator.write(part)
                    else:
                        self._flusher.write(part)
        except BaseException as error:
            # RowIsGone is to be seen by the run, whoever catches it: Django undoes nothing for it.
            if self.transaction.refused() or marks or isinstance(error, RowIsGone):
                self.broken = error
            self._knowledge.rolled_back(with_new_rows(tables))
            give_no_keys(tables)
            if isinstance(error, IntegrityError | DataError):  # the connection is there
                forget_refused(tables, self.tag, self._flusher.suspect(error))
            raise
        finally:
            self.is_writing = False
        for table in tables:
            self._knowledge.forget(table)

    # For what sends statements.

    @contextmanager
    def own_statements(self) -> Iterator[None]:
        """Let what is sent in the block pass the barrier: it is the unit's own."""
        before, self._passing = self._passing, True
        try:
            yield
        finally:
            self._passing = before

    def execute(self, sql: str, params: Any, *, many: bool = False) -> Executed:
        """Send a statement of the unit's own."""
        self.figures_sent(1)
        with self.own_statements(), self.connection.cursor() as cursor:
            if many:
                cursor.executemany(sql, params)
            else:
                cursor.execute(sql, params)
            return Executed(cursor.rowcount, getattr(cursor, "lastrowid", None))

    def ask(self, sql: str, params: Any) -> list[Any]:
        """Send a statement of the unit's own; return its rows."""
        self.figures_sent(1)
        if self.transaction.holds_lock:
            self.transaction.send_savepoints()
        with self.own_statements(), self.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def figures_sent(self, statements: int) -> None:
        """Count statements of the unit's own."""
        for figures in self._figures:
            figures.sent += statements

    def inserted(self, rows: Sequence[NewRow]) -> None:
        """Take note that rows of one shape were written."""
        shape = rows[0].shape
        table, key_of = shape.table, shape.key_of
        if shape.reserve is not None:
            key = rows[0].values[-1]  # they rise
            self.lowest[table] = min(key, self.lowest.get(table, key))
        if key_of is None or shape.reserve is not None:
            self._knowledge.inserted(table)
        else:
            self._knowledge.inserted(table, (key_of(row.values) for row in rows))

    def take_keys(self, rows: Sequence[NewRow], values: Sequence[int]) -> None:
        """Take in the keys that the database has given to rows."""
        for row, value in zip(rows, values, strict=True):
            assert row.late is not None
            self._arrivals.append((row.late, row.shape.converted(value)))

    def begin_handing_out(self) -> None:
        """Forget the keys that have arrived in a try that was undone."""
        self._arrivals.clear()

    def hand_out(self) -> None:
        """Give the late keys of what has been written to their instances: it is written for good,
        while a part of a refused flush is written again, under other keys."""
        for key, value in self._arrivals:
            key.arrive(value)
        self._arrivals.clear()

    @property
    def plain_tables(self) -> dict[str, bool]:
        """By table: whether COPY may write to it, as far as it is known on this connection."""
        return _plain_tables.setdefault(self.connection, {})

    def is_plain_table(self, shape: Shape) -> bool:
        """Tell whether COPY may write to it: a table, without row-level security (PostgreSQL)."""
        known = self.plain_tables
        if shape.table not in known:
            rows = self.ask(
                "SELECT relkind IN ('r', 'p') AND NOT relrowsecurity FROM pg_class "
                "WHERE oid = %s::regclass",
                [shape.quoted],
            )
            known[shape.table] = bool(rows and rows[0][0])
        return known[shape.table]


def _put_back(thing: Any, name: str, value: Any) -> None:
    if value is MISSING:
        delattr(thing, name)
    else:
        setattr(thing, name, value)


def _reads(sql: Any) -> bool:
    """Tell whether SQL of the user's own is a plain SELECT. Anything else may write."""
    return isinstance(sql, str) and sql.lstrip()[:7].upper().startswith("SELECT")
