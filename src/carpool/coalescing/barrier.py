"""Which statements may see a queued row.

Exact where it can be, total everywhere: a statement passes only if it is *proved* not to touch a
table with queued rows, or (`excludes`) to ask for values that no queued row has.

The proof reads the SQL that Django has made. Its parameters are not in it, so every name in it is
a name: one equal to a table's makes the statement touch the table. What it reads from must be
tables of managed models, and what it calls must be functions that are known to read no table;
otherwise (a view, an unmanaged model, a function of your own) it counts as touching everything.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.apps import apps
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import aggregates, functions
from django.db.models.expressions import Col
from django.db.models.fields.related_lookups import RelatedExact, RelatedIn
from django.db.models.lookups import Exact, In, IntegerFieldExact
from django.db.models.sql import DeleteQuery, InsertQuery, UpdateQuery
from django.db.models.sql.where import WhereNode

from carpool.coalescing.rows import (
    INTEGERS,
    TEXTS,
    Field,
    Table,
    folded,
    targets,
    uniquely_constrained,
)

_QUOTED = re.compile(r"""\"[^"]*"|`[^`]*`|'(?:[^']|'')*'""")
_NAME = re.compile(r'"([^"]+)"|`([^`]+)`|(\w+)')
_RELATION = re.compile(
    r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(?:(?:LATERAL|ONLY)\s+)?"
    r'(?:"([^"]+)"|`([^`]+)`|(\w[\w.$]*)|(\())',
    re.IGNORECASE,
)
_CALL = re.compile(r"\b(\w+)\s*\(")
_CALL_BY_QUOTED_NAME = re.compile(r'(\bINTO\s+)?["`][^"`]+["`]\s*\(', re.IGNORECASE)
_WORD = re.compile(r'"[^"]*"|`[^`]*`|\w+|[(),]')
_NO_TABLES_FOLLOW = frozenset(
    [
        "EXCEPT",
        "FETCH",
        "FOR",
        "GROUP",
        "HAVING",
        "INTERSECT",
        "LIMIT",
        "OFFSET",
        "ORDER",
        "RETURNING",
        "SELECT",
        "UNION",
        "VALUES",
        "WHERE",
        "WINDOW",
    ]
)
"""The words that end a list of tables, or show that there is none."""


_KEYWORDS = frozenset(
    [
        "ALL",
        "AND",
        "ANY",
        "AS",
        "ASC",
        "BETWEEN",
        "BIGINT",
        "BINARY",
        "BY",
        "CASE",
        "CAST",
        "CHAR",
        "CONVERT",
        "DATE",
        "DATETIME",
        "DATE_FORMAT",
        "DATE_SUB",
        "DATE_TRUNC",
        "DECIMAL",
        "DESC",
        "DISTINCT",
        "ELSE",
        "END",
        "ESCAPE",
        "EXCEPT",
        "EXISTS",
        "EXTRACT",
        "FILTER",
        "FROM",
        "HAVING",
        "HEX",
        "IN",
        "INSTR",
        "INTERSECT",
        "INTERVAL",
        "INTO",
        "IS",
        "JOIN",
        "JSONB_TYPEOF",
        "JSON_CONTAINS",
        "JSON_CONTAINS_PATH",
        "JSON_EXTRACT",
        "JSON_TYPE",
        "JSON_UNQUOTE",
        "JSON_VALID",
        "JSON_VALUE",
        "LIKE",
        "LIMIT",
        "LTRIM",
        "NOT",
        "NULL",
        "NUMERIC",
        "OFFSET",
        "ON",
        "OR",
        "OVER",
        "PARTITION",
        "POSITION",
        "REGEXP_LIKE",
        "RETURNING",
        "RTRIM",
        "SELECT",
        "SET",
        "SOME",
        "STRFTIME",
        "THEN",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMPDIFF",
        "TIME_FORMAT",
        "TO_TIMESTAMP",
        "TRIM",
        "TRUNCATE",
        "UNHEX",
        "UNION",
        "USING",
        "VALUES",
        "VARCHAR",
        "WHEN",
        "WHERE",
    ]
)
"""What stands before a parenthesis and reads no table: the words of SQL, and functions that
Django's backends write into a statement themselves."""


def _functions() -> frozenset[str]:
    """Return the functions of the database that Django's own expressions call."""
    found: set[str] = set()
    for module in (functions, aggregates):
        for name in module.__all__:
            called = getattr(getattr(module, name), "function", None)
            if isinstance(called, str):
                found.add(called.upper())
    return frozenset(found) | _KEYWORDS


_KNOWN_CALLS = _functions()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a statement's text says: all names, in lower case; what it reads from and writes to, in
    order; whether it calls a function that Django doesn't know, or reads from a list of tables."""

    names: frozenset[str]
    relations: tuple[str, ...]
    strange_calls: bool


@lru_cache(maxsize=4096)
def read(sql: str) -> Reading | None:
    """Return what a statement says, or None where its text can't be taken apart."""
    if "\\" in sql or "--" in sql or "/*" in sql or "$$" in sql or ";" in sql:
        return None
    bare = _QUOTED.sub(lambda found: "''" if found[0][0] == "'" else found[0], sql)
    if bare.count('"') % 2 or bare.count("`") % 2 or bare.count("'") % 2:
        return None
    names = frozenset((a or b or c).lower() for a, b, c in _NAME.findall(bare))
    relations = tuple((a or b or c or d).lower() for a, b, c, d in _RELATION.findall(bare))
    strange = _lists_tables(bare) or not all(_CALL_BY_QUOTED_NAME.findall(bare))
    for word in _CALL.findall(bare):
        upper = word.upper()
        if upper not in _KNOWN_CALLS and not upper.startswith("DJANGO_"):
            strange = True
    return Reading(names, relations, strange)


def _lists_tables(sql: str) -> bool:
    """Tell whether tables stand in a list, ``FROM a, b``: Django itself joins them."""
    begins = sql.upper().find("FROM")
    if begins < 0 or "," not in sql[begins:]:
        return False
    among = [False]  # at each depth of parentheses: are we among tables?
    before = ""
    for found in _WORD.findall(sql):
        word = found.upper()
        if word == "(":
            among.append(before in ("FROM", "JOIN"))
        elif word == ")":
            among[1:] = among[1:-1]
        elif word == "," and among[-1]:
            return True
        elif word == "FROM":
            among[-1] = True
        elif word in _NO_TABLES_FOLLOW:
            among[-1] = False
        before = word
    return False


_managed: frozenset[str] = frozenset()


def _all_managed(relations: tuple[str, ...]) -> bool:
    """Tell whether these are tables of models that Django has made itself."""
    global _managed
    unknown = [name for name in relations if name != "(" and name not in _managed]
    if unknown:  # the first time; or a model has been defined since
        _managed = frozenset(
            model._meta.db_table.lower()
            for model in apps.get_models(include_auto_created=True)
            if model._meta.managed and not model._meta.proxy
        )
    return all(name in _managed for name in unknown)


def touched(compiler: Any, sql: str, tables: dict[str, Table]) -> str | None:
    """Return a table with queued rows that an ORM statement may touch, or None.

    Args:
        compiler: Django's, with its query.
        sql: what it has compiled it to.
        tables: those with queued rows.
    """
    query: Any = compiler.query
    some = next(iter(tables))
    if not isinstance(sql, str) or getattr(query, "extra_tables", None):
        return some
    reading = read(sql)
    if reading is None or reading.strange_calls or not _all_managed(reading.relations):
        return some
    mentioned = [name for name in tables if name.lower() in reading.names]
    if isinstance(query, DeleteQuery):  # the database may cascade, or mind a queued row
        return some
    if isinstance(query, InsertQuery):
        own = query.get_meta()
        return next((n for n in tables if n in mentioned or n in targets(own.model)), None)
    if isinstance(query, UpdateQuery):
        update: Any = query
        model = update.get_meta().model
        unique = uniquely_constrained(model)
        if unique is None or any(field.column in unique for field, _, _ in update.values):
            return some  # rows may point at what changes, or be in its way until they are changed
        pointed = targets(model)
        for name in tables:
            if name in pointed and any(
                field.remote_field is not None for field, _, _ in update.values
            ):
                return name
    for name in mentioned:
        if not excludes(compiler, name, reading, tables[name]):
            return name
    return None


# Queries by values that no queued row has.


def excludes(compiler: Any, name: str, reading: Reading, table: Table) -> bool:
    """Tell whether a query's conditions rule out all queued rows of a table.

    They do if the table is named once, and one of the conditions that a row must meet (not one of
    several alternatives) is that a column of it equals a value that no queued row has there.
    """
    query = compiler.query
    if reading.relations.count(name.lower()) != 1 or query.combinator:
        return False
    aliases = {a for a, t in query.alias_map.items() if t.table_name == name}
    return _rules_out(query.where, aliases, table, compiler.connection)


def _rules_out(
    condition: Any, aliases: set[str], table: Table, connection: BaseDatabaseWrapper
) -> bool:
    if isinstance(condition, WhereNode):
        return (
            condition.connector == "AND"
            and not condition.negated
            and any(_rules_out(c, aliases, table, connection) for c in condition.children)
        )
    found = asked(condition, connection)
    if found is None:
        return False
    column, values = found
    if column.alias not in aliases:
        return False
    comparable = comparison_of(column.target, connection)
    if comparable is None:
        return False
    return table.index(str(column.target.column), comparable).lacks(values)


def asked(condition: Any, connection: BaseDatabaseWrapper) -> tuple[Col, list[Any]] | None:
    """Return the column and the values of an equality with plain values, as the database has them.

    Only Django's own lookups, by their exact class: a subclass may mean something else.
    """
    kind = type(condition)
    if kind not in (Exact, IntegerFieldExact, RelatedExact, In, RelatedIn):
        return None
    lhs = condition.lhs
    if type(lhs) is not Col or condition.bilateral_transforms:
        return None
    if not condition.rhs_is_direct_value():
        return None
    several = kind in (In, RelatedIn)
    rhs = list(condition.rhs) if several else [condition.rhs]
    if any(hasattr(value, "resolve_expression") or value is None for value in rhs):
        return None
    prepare = lhs.target.get_db_prep_value
    return lhs, [prepare(value, connection, prepared=True) for value in rhs]


def comparison_of(field: Field, connection: BaseDatabaseWrapper) -> Callable[[Any], Any] | None:
    """Return what turns a column's values into a form whose equality is the database's.

    None where that isn't known. The form of a value in doubt is None.
    """
    while field.remote_field is not None and isinstance(field, models.ForeignKey):
        field = field.target_field
    if getattr(field, "db_collation", None):
        return None
    if not type(field).__module__.startswith(("django.db.models.", "django.contrib.")):
        return None
    kind = field.get_internal_type()
    if kind in INTEGERS:
        return _integer
    if kind in TEXTS:
        # MySQL's and MariaDB's default collations ignore case and accents.
        return _folded if connection.vendor == "mysql" else _text
    if kind == "UUIDField":
        return _uuid if connection.features.has_native_uuid_field else _text
    return None


# A subclass (an enum, psycopg's Int4) equals what it is one of.


def _integer(value: Any) -> Any:
    return value if isinstance(value, int) else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _uuid(value: Any) -> Any:
    return value if isinstance(value, uuid.UUID) else None


def _folded(value: Any) -> str | None:
    """Return text so that two that a collation may hold equal are equal."""
    if not isinstance(value, str) or not value.isascii():
        return None
    return str(folded(value))
