"""SQLAlchemy 2's session on the table of Django's users: the other unit of work.

Used as its users use it: a mapped class with Python's defaults, two listeners, its own settings.
Values are those that `User.objects.create()` writes, and the driver is the one that Django has.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db import connection
from sqlalchemy import URL, DateTime, Engine, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks import counters
from benchmarks.suite import Task

#: Rows of one flush. Without it the commit flushes all at once, and holds all until then.
FLUSH_ROWS = 1000

DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+mysqldb",
}
#: What OPTIONS may hold for Django itself, not for the driver.
NOT_FOR_DRIVER = ("assume_role", "isolation_level", "pool", "server_side_binding")


class Base(DeclarativeBase):
    """The base of what is mapped."""


class User(Base):
    """Django's user, as far as creating one goes."""

    __tablename__ = "auth_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    password: Mapped[str] = mapped_column(String(128), default="")
    last_login: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    is_superuser: Mapped[bool] = mapped_column(default=False)
    username: Mapped[str] = mapped_column(String(150))
    first_name: Mapped[str] = mapped_column(String(150), default="")
    last_name: Mapped[str] = mapped_column(String(150), default="")
    email: Mapped[str] = mapped_column(String(254), default="")
    is_staff: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    date_joined: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(UTC)
    )


@cache
def engine() -> Engine:
    """Return the engine for the round's database."""
    settings = connection.settings_dict
    options: dict[str, Any] = {
        key: value for key, value in settings["OPTIONS"].items() if key not in NOT_FOR_DRIVER
    }
    host = settings["HOST"]
    if connection.vendor == "mysql":
        options.setdefault("charset", "utf8mb4")
        if host.startswith("/"):
            options["unix_socket"], host = host, ""
    return create_engine(
        URL.create(
            DRIVERS[connection.vendor],
            username=settings["USER"] or None,
            password=settings["PASSWORD"] or None,
            host=host or None,
            port=int(settings["PORT"]) if settings["PORT"] else None,
            database=str(settings["NAME"]),
        ),
        connect_args=options,
    )


def prepare() -> None:
    """Connect the listeners, and the engine, whose pool keeps the connection."""
    counters.connect_session(User, engine())
    engine().connect().close()


def insert(task: Task) -> None:
    """Add all, flush every thousand, commit once."""
    with Session(engine()) as session:
        for number, item in enumerate(task.items(), start=1):
            task.setup()
            session.add(User(username=item["username"], email=item["email"]))
            if number % FLUSH_ROWS == 0:
                session.flush()
        session.commit()
