"""A journal that can't be written: by a role without the right to, or by a trigger that refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection

from carpool.journal.models import Entry, Lease, Run

TABLES = [model._meta.db_table for model in (Run, Lease, Entry)]

TRIGGERS = {
    "sqlite": "BEGIN SELECT RAISE(ABORT, 'the journal is read-only'); END",
    "mysql": "FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the journal is read-only'",
}


@dataclass
class Refusal:
    """What a script may not insert into.

    Attributes:
        role: on PostgreSQL, as whom the script works; its superuser has every right.
        said: what the database says to it.
    """

    role: str
    said: str

    def begin(self, table: str) -> None:
        """Refuse rows of this table from now on."""
        if connection.vendor == "postgresql":
            execute(f"REVOKE INSERT ON {table} FROM {self.role}")
        else:
            trigger = TRIGGERS[connection.vendor]
            execute(f"CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} {trigger}")

    def end(self, table: str) -> None:
        """Take them again."""
        if connection.vendor == "postgresql":
            execute(f"GRANT INSERT ON {table} TO {self.role}")
        else:
            execute(f"DROP TRIGGER IF EXISTS refuse_{table}")

    @property
    def environment(self) -> dict[str, str]:
        """What makes a script work under the role."""
        if connection.vendor != "postgresql":
            return {}
        url = os.environ["CARPOOL_TEST_DATABASE_URL"]
        user = f"//{self.role}:{self.role}@"
        return {"CARPOOL_TEST_DATABASE_URL": re.sub("//[^@]*@", user, url)}


@contextmanager
def refusal() -> Iterator[Refusal]:
    """Have a role or triggers for the block."""
    role = f"torment_{os.getpid()}"
    if connection.vendor == "postgresql":
        execute(
            f"CREATE ROLE {role} LOGIN PASSWORD '{role}'",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        )
        said = "permission denied"
    else:
        if connection.vendor == "sqlite":
            execute("PRAGMA busy_timeout = 60000")  # writers queue, and this one waits its turn
        said = "the journal is read-only"
    refusal = Refusal(role, said)
    try:
        yield refusal
    finally:
        if connection.vendor == "postgresql":
            execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
        else:
            for table in TABLES:
                refusal.end(table)


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
