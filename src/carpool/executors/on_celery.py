"""Chunks run by a project's Celery workers; this is the coordinator's side.

The life of a chunk::

    _send() ─▶ task queue ─▶ worker: carpool.tasks.run_chunk, which answers as soon as it has
                                     committed, and then acknowledges
    came_back() ◀─ reply queue ◀───────┘   of this run only, drained by a thread

Three threads: the run's own sends; the receiver drains the reply queue; the watcher meets the
workers that were slow to answer at the start, and looks for chunks that nothing is heard of.

Note [Lost chunks]
    A broker redelivers what a dead worker had: RabbitMQ at once, Redis after its visibility
    timeout, an hour by default; and a broker that was restarted may have forgotten it. A run can't
    wait for that, nor can it tell a lost chunk from one that waits behind other work by its age. So
    an overdue chunk is looked for. Its queue is first in, first out: when something that was sent
    after it has been answered, the queue has come to it, and some worker took it. If nothing was
    sent after it, a question is. When then no living worker has it, twice in a row, it is given up.
    That is right or harmless: the journal lets a chunk that was given up commit no more. Without a
    journal it is unknown.

Note [Questions]
    On Redis, who has asked workers still waits: kombu has sent a BRPOP, whose reply comes after up
    to a second. In the app's pool such a connection is dangerous. Whatever process multiprocessing
    forks then closes the pool, for which kombu reads that reply from the socket that both have. The
    first child takes it; the next ones wait for ever; and the parent, which waits for it too, hears
    no worker's answer any more. So a question has a connection of its own, and ends with it. What
    a thread of a run holds at the moment of a fork is `forked`'s matter.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from celery import current_app, states
from celery import exceptions as celery_exceptions
from django.core.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError

from carpool.engine import Engine
from carpool.exceptions import ConfigurationError, RunFailed
from carpool.executors.base import Event
from carpool.executors.celery_messages import (
    ANSWER,
    COMMAND,
    NEEDS_PARCEL,
    NEEDS_PARCEL_AGAIN,
    PROOF,
    REQUEST,
    TASK,
    Order,
    replies_of,
    run_of,
    task_of,
)
from carpool.executors.child import ShippedJob
from carpool.executors.forked import keep_children_free
from carpool.executors.large import LargeItems
from carpool.executors.remote import Parcel, RemoteExecutor, check_workers
from carpool.executors.sealed import BadSeal, seal, unseal
from carpool.functions import dumps, loads
from carpool.interrupts import Interrupts
from carpool.types import Chunk

ARRIVAL = 10.0
"""Seconds to wait for a first worker at the start of a run."""

QUIET = 0.5
"""Seconds without a further answer after which all workers are taken to have answered: hosts of one
network take some milliseconds."""

FIRST_QUIET = 0.15
"""The same at the start of a run, which each run waits for."""

SECOND_LOOK = 1.0
"""Seconds after the start at which those are met who were slower than that."""

FAREWELL = 2.0
"""Seconds that the threads have to end."""

TICK = 0.1
"""Seconds between two looks of the receiver whether the run is over."""

UNHURRIED = 20
"""A chunk is overdue after so many times what chunks take from being sent to being answered."""

SILENCE = 4
"""The run ends when nothing was heard of any worker for so many times ``patience``."""

SILENT_WORK = 3600.0
"""Seconds for which a chunk is waited for that may be with a worker which can't answer while it
works (``--pool=solo``), if such a one is silent: as long as Redis waits by default."""

SMALL_PARCEL = 2048
"""Characters of a sealed parcel that comes along with every chunk: a function with an import path
takes some 600, a lambda 1,000. A larger one goes to each worker process when it asks for it, which
costs a round trip."""


class Celery(Engine):
    """A project's app; see `carpool.executors.celery`."""

    def __init__(
        self,
        app: Any,
        *,
        queue: str | None,
        workers: int | None,
        patience: float,
        may_be_unknown: bool,
    ) -> None:
        self._app = _current_app() if app is None else app
        self._queue = queue
        self._workers = workers
        self._patience = patience
        self._may_be_unknown = may_be_unknown

    def check(self, *, journal: bool) -> None:
        if self._app.conf.task_always_eager:
            raise ConfigurationError(
                "Celery's task_always_eager is on, so there is no worker. Turn it off, or use "
                'executor="inline".'
            )
        if not {"json", "application/json"} & set(self._app.conf.accept_content):
            raise ConfigurationError(
                "Celery's workers take chunks as JSON, and this app's accept_content leaves that "
                'out. Add "json" to it.'
            )
        if not journal and not self._may_be_unknown:
            raise ConfigurationError(
                "Celery may deliver a chunk twice (a lost worker, a visibility timeout), and only "
                "a journal can tell that it is stored already. Give the run a name: journal=…; or "
                "accept that such a chunk's items are reported as unknown: "
                "executor=carpool.executors.celery(…, redelivered_chunks_may_be_unknown=True)."
            )
        try:
            seal(b"", "")
        except ImproperlyConfigured as error:
            raise ConfigurationError(
                f"What is sent to Celery's workers is signed with SECRET_KEY: {error}"
            ) from error

    def executor(
        self, parcel: Parcel, workers: int | None, interrupts: Interrupts
    ) -> CeleryExecutor:
        return CeleryExecutor(
            self._app,
            parcel,
            workers or self._workers,
            interrupts,
            queue=self._queue,
            patience=self._patience,
        )


def _current_app() -> Any:
    """Return the project's app.

    Raises:
        ConfigurationError: there is none, only the one that Celery makes up.
    """
    app = current_app._get_current_object()
    if app.main == "default" and not app.conf.broker_url:
        raise ConfigurationError(
            'executor="celery" is the project\'s Celery app, and this process has none. Import it '
            "where the project begins (Celery's guide for Django does so in the project's "
            "__init__.py; app.set_default() makes it known to all threads), or pass it: "
            "executor=carpool.executors.celery(app)."
        )
    return app


@dataclass(slots=True)
class _Sent:
    """A chunk that is out.

    ``turn``: counts what was sent. ``missed``: how often in a row no worker had it, though the
    queue had come to it.
    """

    chunk: Chunk
    turn: int
    at: float
    missed: int = 0


class CeleryExecutor(RemoteExecutor):
    """Sends chunks as tasks. Until it is started it touches no broker."""

    label = "celery"
    redelivers = True

    def __init__(
        self,
        app: Any,
        parcel: Parcel,
        workers: int | None,
        interrupts: Interrupts,
        *,
        queue: str | None,
        patience: float,
    ) -> None:
        super().__init__(workers or 1, interrupts)
        self._app = app
        self._parcel = parcel
        self._given_workers = workers
        self._patience = patience
        self._queue = queue
        self._large = LargeItems()
        shipped: ShippedJob = loads(parcel.job)
        self._journal = shipped.rest.permit is not None
        self._send_parcel = len(seal(dumps(parcel), "")) <= SMALL_PARCEL
        self._replies = replies_of(parcel.run)
        self._guard = threading.Lock()
        self._out: dict[int, _Sent] = {}
        self._turns = count(1)
        self._furthest = 0  # the last turn of which something was heard
        self._turn_around = 0.0  # seconds from sent to answered, a moving average
        self._question = 0.0  # when the last one was sent that asks how far the queue is
        self._heard = 0.0
        self._crew: dict[str, dict[str, Any]] = {}
        self._trouble = ""
        self._to_say: deque[str] = deque()
        self._warned_of: set[str] = set()
        self._failure: RunFailed | None = None
        self._canceled = False
        self._closing = threading.Event()
        self._reconnect = threading.Event()
        self._ready = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"carpool-celery-{name}", daemon=True)
            for name, target in (("receiver", self._receive), ("watcher", self._watch))
        ]

    # The run's own thread.

    def start(self) -> None:
        super().start()
        self._count_in(self._greet())
        self._heard = time.monotonic()
        keep_children_free()
        for thread in self._threads:
            thread.start()
        while not self._ready.wait(TICK) and not self._interrupts.noticed:
            if time.monotonic() - self._heard > ARRIVAL:
                raise RunFailed(f"No reply queue can be made at the broker: {self._trouble}")

    def _greet(self) -> dict[str, dict[str, Any]]:
        """Return the workers of the queue, by name, all of them able to take part."""
        deadline = time.monotonic() + ARRIVAL
        others: dict[str, dict[str, Any]] = {}
        quiet = FIRST_QUIET
        while not self._interrupts.pending:
            try:
                answers = self._ask_who_is_there(quiet)
            except self._connection_errors as error:
                answers, self._trouble = {}, f"{type(error).__name__}: {error}"
            others |= answers
            crew = self._crew_of(answers)
            if crew:
                return crew
            if time.monotonic() > deadline:
                raise RunFailed(self._nobody(self._queue_name(), others))
            quiet = QUIET
        return {}

    def _ask_who_is_there(self, quiet: float) -> dict[str, dict[str, Any]]:
        parcel = self._parcel
        return self._ask(quiet, run=parcel.run, home=parcel.passport, module=parcel.settings_module)

    def _crew_of(self, answers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the answers of those who weren't known to be of the queue, and can take part."""
        self._refuse_strangers(answers, self._queue_name())
        known = self._crew
        crew = {name: a for name, a in self._of_the_queue(answers).items() if name not in known}
        self._check(crew)
        return crew

    def _of_the_queue(self, answers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        queue = self._queue_name()
        return {name: a for name, a in answers.items() if queue in a.get("queues", ())}

    def _count_in(self, crew: dict[str, dict[str, Any]]) -> None:
        self._crew |= crew
        sizes = sum(int(worker["size"]) for worker in self._crew.values())
        self.workers = self._given_workers or max(1, sizes)

    def _check(self, crew: dict[str, dict[str, Any]]) -> None:
        passports = {name: worker["passport"] for name, worker in crew.items()}
        for words in check_workers(self._parcel.passport, passports):
            self._say(words)
        for name, worker in crew.items():
            try:
                unseal(worker["proof"], PROOF.format(self._parcel.run))
            except BadSeal:
                raise ConfigurationError(
                    f"The worker {name} has another SECRET_KEY than this process, so neither can "
                    "read what the other sends. Give both the same settings."
                ) from None

    def _refuse_strangers(self, answers: dict[str, dict[str, Any]], queue: str) -> None:
        """Refuse a worker of the queue that doesn't know carpool's task: it would drop chunks."""
        strangers = [name for name, answer in answers.items() if "queues" not in answer]
        if not strangers:
            return
        with self._connected() as connection:
            inspect = self._app.control.inspect(strangers, timeout=QUIET, connection=connection)
            consumed = inspect.active_queues() or {}
        for name, queues in consumed.items():
            if queue in [described["name"] for described in queues or ()]:
                raise ConfigurationError(
                    f"The worker {name} takes tasks from the queue {queue!r} and doesn't know "
                    'carpool\'s. Put "carpool" into INSTALLED_APPS where the app calls '
                    'autodiscover_tasks(), or give the app include=["carpool.tasks"]; then start '
                    "the worker again. Or use another queue: carpool.executors.celery(queue=…)."
                )

    def _nobody(self, queue: str, others: dict[str, dict[str, Any]]) -> str:
        """Say why there is no worker."""
        if not others and self._trouble:
            return f"Celery's broker can't be reached: {self._trouble}"
        found = ", ".join(
            f"{name} ({', '.join(answer.get('queues', ())) or 'without carpool.tasks'})"
            for name, answer in sorted(others.items())
        )
        return (
            f"No Celery worker of the queue {queue!r} has answered within {ARRIVAL:.0f} seconds. "
            f"Others have: {found or 'none'}. Start one (celery -A … worker -Q {queue}), with "
            "remote control on (worker_enable_remote_control). A worker with --pool=solo can't "
            "answer while it works."
        )

    def _queue_name(self) -> str:
        if self._queue is not None:
            return self._queue
        route = self._app.amqp.router.route({}, TASK)
        queue = route.get("queue")
        return str(getattr(queue, "name", queue) or self._app.conf.task_default_queue)

    def wait(self) -> list[Event]:
        self._speak()
        return self._take(self._back.get()) + super().poll()

    def poll(self) -> list[Event]:
        self._speak()
        return super().poll()

    def _speak(self) -> None:
        """Say what the threads want said, before anything is taken that must not be lost."""
        while self._to_say:
            warnings.warn(self._to_say.popleft(), RuntimeWarning, stacklevel=2)
        if self._failure is not None:
            raise self._failure

    def _send(self, key: int, chunk: Chunk) -> None:
        with self._guard:
            now = time.monotonic()
            if not self._out:
                self._heard = now  # until now nobody had anything to answer
            self._out[key] = _Sent(chunk, next(self._turns), now)
        if word := self._large.word_on(chunk):
            self._say(word)
        self._publish(key, chunk, with_parcel=self._send_parcel)

    def _publish(self, key: int, chunk: Chunk, *, with_parcel: bool) -> None:
        """Send a chunk; where that fails, its fate is as for one that was lost."""
        parcel = self._parcel if with_parcel else None
        order = Order(self._parcel.run, parcel, chunk.number, chunk.payloads, chunk.note)
        task = self._task(key)
        sealed = seal(dumps(order), REQUEST.format(task))
        deadline = time.monotonic() + SILENCE * self._patience
        while True:
            try:
                self._send_task(task, sealed)
                return
            except self._connection_errors as error:
                trouble = f"{type(error).__name__}: {error}"
                over = self._interrupts.pending or self._closing.is_set()
                # It may have arrived all the same. Sent again, it may be there twice.
                if not self._journal or over or time.monotonic() > deadline:
                    self._fail(f"Celery's broker can't be reached: {trouble}")
                    self._give_back(key, error)
                    return
                self._say(f"Celery's broker can't be reached: {trouble}", once="broker")
                time.sleep(min(1.0, self._patience / 10))

    def _send_task(self, task: str, sealed: str) -> None:
        options = {} if self._queue is None else {"queue": self._queue}
        self._app.send_task(
            TASK,
            (self._parcel.settings_module, sealed),
            task_id=task,
            reply_to=self._replies.name,
            ignore_result=True,
            serializer="json",
            argsrepr="(…)",  # what workers log, and monitors show
            # A pool's connection that broke is made again by the retry; what it sent may be twice.
            retry=self._journal,
            retry_policy={"max_retries": 1, "interval_start": 0.0},
            add_to_parent=False,
            **options,
        )

    def _task(self, key: int) -> str:
        return task_of(self._parcel.run, key)

    def _cancel(self, keys: Sequence[int]) -> None:
        self._canceled = True
        if keys:
            # In a thread, since it may hang where the broker does.
            tasks = [self._task(key) for key in keys]
            threading.Thread(target=self._revoke, args=(tasks,), daemon=True).start()

    def _revoke(self, tasks: list[str]) -> None:
        try:
            with self._connected() as connection:
                self._app.control.revoke(tasks, connection=connection)
        except self._connection_errors:
            pass

    def close(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            if self._ready.is_set():
                self._wake_receiver()
        for thread in self._threads:
            if thread.ident is not None:
                # If it is still busy, it hangs at a broker that is gone, and ends when that does.
                thread.join(FAREWELL)

    def _wake_receiver(self) -> None:
        """Send an empty reply: kombu waits up to a second for Redis, and can't be called back."""
        try:
            with self._app.amqp.producer_pool.acquire(block=True) as producer:
                producer.publish(
                    {}, routing_key=self._replies.name, serializer="json", delivery_mode=1
                )
        except self._connection_errors:
            pass

    # From any thread.

    @property
    def _connection_errors(self) -> tuple[type[BaseException], ...]:
        # The transport's own errors: which library raises is the broker's matter.
        connection = self._app.connection_for_write()
        return (
            OSError,
            OperationalError,
            celery_exceptions.OperationalError,
            *connection.connection_errors,
            *connection.channel_errors,
        )

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Open a connection to ask workers by. Not one of the app's pool: Note [Questions]."""
        connection = self._app.connection_for_write()
        try:
            connection.ensure_connection(max_retries=1, timeout=self._patience)
            yield connection
        finally:
            self._hang_up(connection)

    def _hang_up(self, connection: Any) -> None:
        """Close a connection, without waiting for what it may be waiting for."""
        if connection.connected and connection.transport.driver_type == "redis":
            with suppress(*self._connection_errors):
                # kombu forgets the BRPOP of a connection that breaks. `client` is of its Redis
                # channels only, and undocumented; checked on kombu 5.7.
                waiting = connection.default_channel.client.connection
                if waiting is not None:  # there was something to wait for
                    waiting.disconnect()
        connection.release()

    def _ask(self, quiet: float, **arguments: Any) -> dict[str, dict[str, Any]]:
        """Ask all workers of the app; return their answers by name, once none comes any more."""
        with self._connected() as connection:
            replies = self._app.control.broadcast(
                COMMAND, arguments=arguments, reply=True, timeout=quiet, connection=connection
            )
        return {name: answer for reply in replies for name, answer in reply.items()}

    def _say(self, words: str, *, once: str = "") -> None:
        if once not in self._warned_of:
            self._to_say.append(words)
            self._wake()
        if once:
            self._warned_of.add(once)

    def _fail(self, words: str) -> None:
        if self._failure is None:
            self._failure = RunFailed(words)
            self._wake()

    def _give_back(self, key: int, answer: bytes | BaseException | None) -> None:
        with self._guard:
            sent = self._out.pop(key, None)
        if sent is not None:
            self.came_back(key, answer)

    # The receiver.

    def _receive(self) -> None:
        while not self._closing.is_set():
            self._reconnect.clear()
            connection = self._app.connection_for_read()
            try:
                connection.ensure_connection(max_retries=1, timeout=self._patience)
                with connection.Consumer(
                    [self._replies], callbacks=[self._on_reply], no_ack=True, accept=["json"]
                ):
                    self._ready.set()
                    while not self._closing.is_set() and not self._reconnect.is_set():
                        try:
                            connection.drain_events(timeout=TICK)
                        except TimeoutError:
                            pass
                        self._notice_silence()
                if self._closing.is_set():
                    self._replies(connection.default_channel).delete()
            except Exception as error:  # whatever it is: replies must be received
                self._trouble = f"{type(error).__name__}: {error}"
                self._notice_silence()
                self._closing.wait(min(1.0, self._patience / 10))
            finally:
                connection.release()

    def _notice_silence(self) -> None:
        silent = time.monotonic() - self._heard
        if self._out and silent > SILENCE * self._patience:
            trouble = f" (the broker: {self._trouble})" if self._trouble else ""
            self._fail(
                f"No Celery worker of the queue {self._queue_name()!r} has answered for "
                f"{silent:.0f} seconds{trouble}. What was out may be stored or not; with a journal "
                "it is known, and the same call goes on from here."
            )

    def _on_reply(self, body: Any, message: Any) -> None:
        self._heard = time.monotonic()
        self._trouble = ""
        run, name = run_of(str(body.get("task_id")))
        if run != self._parcel.run:
            return
        if name.startswith("q"):
            self._furthest = max(self._furthest, int(name[1:]))
            return
        key = int(name)
        with self._guard:
            sent = self._out.get(key)
        if sent is None:
            return
        self._furthest = max(self._furthest, sent.turn)
        match body.get("status"):
            case states.SUCCESS:
                self._on_answer(key, sent, str(body.get("result")))
            case states.REVOKED if "terminated" not in str(body.get("result")):
                self._give_back(key, None)
            case status:
                self._on_error(key, status, body.get("result"))

    def _on_answer(self, key: int, sent: _Sent, text: str) -> None:
        try:
            answer = unseal(text, ANSWER.format(self._task(key)))
        except BadSeal as error:
            self._fail(f"An answer can't be read: {error}.")
            self._give_back(key, error)
            return
        if answer == NEEDS_PARCEL_AGAIN and not self._journal:
            self._give_back(key, ChunkLost("it was delivered a second time"))
            return
        if answer in (NEEDS_PARCEL, NEEDS_PARCEL_AGAIN):
            if self._canceled:
                self._give_back(key, None)
                return
            with self._guard:
                sent.turn, sent.at = next(self._turns), time.monotonic()
            self._publish(key, sent.chunk, with_parcel=True)
            return
        took = time.monotonic() - sent.at
        self._turn_around = 0.8 * self._turn_around + 0.2 * took if self._turn_around else took
        self._give_back(key, answer)

    def _on_error(self, key: int, status: Any, result: Any) -> None:
        """Take Celery's word that the task has failed: its worker died, or has another key."""
        kind, said = status, result
        if isinstance(result, dict):
            kind = result.get("exc_type", status)
            said = result.get("exc_message")
            said = " ".join(map(str, said)) if isinstance(said, list | tuple) else said
        if kind in (BadSeal.__name__, ConfigurationError.__name__):
            self._fail(f"A Celery worker can't take part: {said}")
        self._give_back(key, ChunkLost(f"{kind}: {said}"))

    # The watcher. See Note [Lost chunks].

    def _watch(self) -> None:
        if not self._closing.wait(min(SECOND_LOOK, self._patience / 4)):
            self._meet_the_rest()
        while not self._closing.wait(self._patience / 4):
            overdue = self._overdue()
            silent = self._out and time.monotonic() - self._heard > self._patience
            if not overdue and not silent:
                continue
            try:
                self._look_for(overdue)
            except Exception as error:  # the broker's; it is said if nothing better follows
                self._trouble = f"{type(error).__name__}: {error}"
                self._reconnect.set()

    def _meet_the_rest(self) -> None:
        """Count in those whom the start of the run has not waited for."""
        try:
            answers = self._ask_who_is_there(QUIET)
            if self._crew.keys() & answers:
                self._heard = time.monotonic()
            self._count_in(self._crew_of(answers))
        except ConfigurationError as error:
            self._fail(str(error))
        except Exception as error:  # the broker's; it is said if nothing better follows
            self._trouble = f"{type(error).__name__}: {error}"

    def _overdue(self) -> dict[int, _Sent]:
        latest = time.monotonic() - max(self._patience, UNHURRIED * self._turn_around)
        with self._guard:
            return {key: sent for key, sent in self._out.items() if sent.at < latest}

    def _look_for(self, overdue: dict[int, _Sent]) -> None:
        furthest = self._furthest
        answers = self._ask(QUIET, ids=[self._task(key) for key in overdue])
        crew = self._of_the_queue(answers)
        if not crew:
            self._say(
                f"No Celery worker of the queue {self._queue_name()!r} answers. The run waits for "
                f"one, and ends when none has answered for {SILENCE * self._patience:.0f} seconds.",
                once="nobody",
            )
            self._reconnect.set()
        else:
            self._heard = time.monotonic()
        now = time.monotonic()
        at_work = [
            name
            for name, worker in self._crew.items()
            if name not in crew and not worker["answers_while_it_works"]
        ]
        self._crew |= crew
        has = {task for answer in answers.values() for task in answer.get("has", ())}
        ask_how_far = False
        for key, sent in overdue.items():
            if self._task(key) in has or (at_work and now - sent.at < SILENT_WORK):
                sent.missed = 0
                if at_work:
                    self._heard = now
            elif sent.turn >= furthest:
                ask_how_far = True
            elif not crew:
                continue
            else:
                sent.missed += 1
                if sent.missed > 1:
                    self._reconnect.set()
                    self._give_back(key, ChunkLost("no worker has it any more"))
        if ask_how_far and now - self._question > self._patience:
            self._question = now
            self._send_task(self._task_of_question(), "")

    def _task_of_question(self) -> str:
        return task_of(self._parcel.run, f"q{next(self._turns)}")


class ChunkLost(Exception):
    """Nobody knows what became of the chunk."""
