"""A run with workers during a request is warned of; nowhere else is it, whatever looks like one."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path, set_urlconf

import carpool
from carpool import DuringRequest, databases
from carpool.executors import auto
from carpool.journal.models import Run

try:
    from django.tasks import task
except ImportError:  # Django 5.2
    from django_tasks import task  # type: ignore[no-redef]

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

ITEMS = 30


def short(item: Any) -> None:
    """Be done at once: a run of these never needs a pool."""


def long(item: Any) -> None:
    """Take so long that "auto" starts its processes."""
    time.sleep(0.03)


class Call:
    """The run that the views make, and the line on which they do."""

    function: Callable[[Any], Any] = staticmethod(short)
    options: dict[str, Any]
    line = 0

    @classmethod
    def make(cls) -> None:
        cls.line = sys._getframe().f_lineno + 1
        carpool.run(cls.function, range(ITEMS), workers=2, progress=False, **cls.options)
        if threading.current_thread() is not threading.main_thread():
            databases.close_mine()  # nobody else does when this thread ends


def view(request: HttpRequest) -> HttpResponse:
    Call.make()
    return HttpResponse("done")


async def async_view(request: HttpRequest) -> HttpResponse:
    await sync_to_async(Call.make)()
    return HttpResponse("done")


async def async_view_in_a_thread_of_its_own(request: HttpRequest) -> HttpResponse:
    await sync_to_async(Call.make, thread_sensitive=False)()
    return HttpResponse("done")


def streaming_view(request: HttpRequest) -> StreamingHttpResponse:
    options = {"executor": "threads", "workers": 2, "progress": False}
    outcomes = carpool.stream(str, range(ITEMS), **options)  # type: ignore[arg-type]
    return StreamingHttpResponse(str(outcome.value) for outcome in outcomes)


def view_of_nothing(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter(["all", " right"]))


def command_view(request: HttpRequest) -> HttpResponse:
    call = {"queryset": "auth.User", "executor": "threads", "workers": 2, "skip_checks": True}
    call_command("carpool", "run", "builtins.str", stdout=StringIO(), stderr=StringIO(), **call)
    return HttpResponse("done")


@task()
def by_task() -> None:
    Call.make()


def enqueuing_view(request: HttpRequest) -> HttpResponse:
    result = by_task.enqueue()  # by the ImmediateBackend, the default, which runs it here and now
    return HttpResponse("failed" if result.errors else "done")


class Urls:
    urlpatterns = (
        path("view", view),
        path("async-view", async_view),
        path("async-view-in-a-thread-of-its-own", async_view_in_a_thread_of_its_own),
        path("streaming-view", streaming_view),
        path("view-of-nothing", view_of_nothing),
        path("command-view", command_view),
        path("enqueuing-view", enqueuing_view),
    )


VIEWS = ("view", "async-view", "async-view-in-a-thread-of-its-own")


@pytest.fixture(autouse=True)
def urls() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"]):
        yield
    set_urlconf(None)


@pytest.fixture(autouse=True)
def call() -> type[Call]:
    Call.function, Call.options = staticmethod(short), {"executor": "threads"}
    return Call


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


# How requests come.


def by_client(name: str) -> bytes:
    return Client().get(f"/{name}").content


def by_async_client(name: str) -> bytes:
    return asyncio.run(AsyncClient().get(f"/{name}")).content


def by_async_client_of_sync_code(name: str) -> bytes:
    return async_to_sync(AsyncClient().get)(f"/{name}").content


def by_wsgi(name: str) -> bytes:
    environ = RequestFactory().get(f"/{name}").environ
    response = WSGIHandler()(environ, lambda *status_and_headers: lambda data: None)
    try:
        return b"".join(response)
    finally:
        response.close()


def by_asgi(name: str) -> bytes:
    sent: list[dict[str, Any]] = []
    received = [{"type": "http.request"}]

    async def receive() -> Any:
        if not received:
            await asyncio.sleep(3600)  # nobody hangs up
        return received.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/{name}",
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
    }
    asyncio.run(ASGIHandler()(scope, receive, send))
    return b"".join(message.get("body", b"") for message in sent)


WAYS = [by_client, by_async_client, by_async_client_of_sync_code, by_wsgi, by_asgi]


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("get", WAYS, ids=lambda get: get.__name__)
def test_each_kind_of_view_under_each_kind_of_handler(
    get: Callable[[str], bytes], name: str
) -> None:
    """One warning, which points at the line that calls run()."""
    with pytest.warns(DuringRequest, match=r"django\.tasks.*executor=\"inline\"") as caught:
        assert get(name) == b"done"

    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, Call.line)


# Which runs.


@pytest.mark.parametrize("executor", ["threads", "processes", "futures"])
def test_every_executor_that_has_workers(executor: str, pool: Executor, call: type[Call]) -> None:
    """Whatever they are."""
    call.options = {"executor": pool if executor == "futures" else executor}
    with pytest.warns(DuringRequest):
        by_client("view")


def test_auto_that_starts_processes(call: type[Call]) -> None:
    """When it starts them, once, with the line that calls run()."""
    call.function, call.options = staticmethod(long), {}
    with pytest.warns(DuringRequest) as caught:
        by_client("view")

    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, Call.line)


@pytest.mark.parametrize("options", [{}, {"executor": "inline", "workers": 1}], ids=str)
def test_no_workers_no_warning(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run of "auto", and an inline one. (A warning would be an error.)"""
    monkeypatch.setattr(auto, "PATIENCE", 3600.0)  # it is short on a busy machine, too

    def few(request: HttpRequest) -> HttpResponse:
        report = carpool.run(short, range(3), progress=False, **options)
        return HttpResponse(report.executor)

    class Few:
        urlpatterns = (path("few", few),)

    with override_settings(ROOT_URLCONF=Few):
        assert by_client("few") == b"inline"


def test_stream_warns_when_it_is_called() -> None:
    """Though it runs only when the response is sent, after the handler has returned it."""
    line = inspect.getsourcelines(streaming_view)[1] + 2
    with pytest.warns(DuringRequest) as caught:
        response = Client().get("/streaming-view")
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, line)
    assert b"".join(response) == "".join(map(str, range(ITEMS))).encode()  # type: ignore[arg-type]


def test_the_command_called_by_a_view() -> None:
    """The line is the view's, not that of the command or of call_command()."""
    line = inspect.getsourcelines(command_view)[1] + 2
    with pytest.warns(DuringRequest) as caught:
        assert by_client("command-view") == b"done"
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_a_task_that_is_run_at_once() -> None:
    """In the request that enqueues it: the ImmediateBackend is no queue."""
    with pytest.warns(DuringRequest) as caught:
        assert by_client("enqueuing-view") == b"done"
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, Call.line)


def test_it_is_shown_once_for_a_line() -> None:
    """As Python's filters have it, however many requests come."""
    globals().pop("__warningregistry__", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            by_client("view")
    assert [warning.category for warning in caught] == [DuringRequest]


def test_as_an_error_it_refuses_the_run(call: type[Call]) -> None:
    """Before the first item, and before the journal knows of it."""
    call.options = {"executor": "threads", "journal": "in a request"}
    with pytest.raises(DuringRequest):
        by_client("view")
    assert not Run.objects.filter(name="in a request").exists()


def test_as_an_error_it_ends_an_auto_run(call: type[Call]) -> None:
    """Instead of starting processes; what is done by then is in the report."""
    call.function, call.options = staticmethod(long), {}
    with pytest.raises(DuringRequest) as caught:
        by_client("view")
    report = caught.value.report  # type: ignore[attr-defined]
    assert report.executor == "inline"
    assert 0 < report.succeeded < ITEMS


# What is none. A warning would be an error here.


def test_a_run_beside_requests() -> None:
    """A test, a command or a task calls run() itself, whatever this thread has served before."""
    unread = Client().get("/view-of-nothing")  # its request never finishes
    Call.make()
    assert not by_task.enqueue().errors
    asyncio.run(AsyncClient().get("/view-of-nothing"))
    Call.make()
    unread.close()


def test_a_urlconf_set_by_hand() -> None:
    """As code with several tenants does in commands and tasks, to build addresses."""
    by_hand: Any = Urls

    def task() -> None:
        set_urlconf(by_hand)
        Call.make()

    task()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(task).result()


def test_async_code_without_a_request() -> None:
    """A consumer, an async command."""
    asyncio.run(sync_to_async(Call.make)())
    async_to_sync(sync_to_async(Call.make))()


def test_a_view_called_as_a_function() -> None:
    """No handler, so no request that waits."""
    assert view(RequestFactory().get("/view")).content == b"done"
