"""Run Django's own tests inside `carpool.coalesce()`, and compare with a plain run.

::

    python -m tools.django_suite                           the modules of `modules`
    python -m tools.django_suite --db postgres basic m2m_signals.tests   these, on one database

`checkout` gets the tests from Django's sdist, in the version that is installed. Django's own
``runtests.py`` runs them, with the settings and the test runner of this package: every test that
may use a database, from its ``setUp()`` to its last cleanup, and every ``setUpTestData()`` runs in
one block, on all databases that the test may use. That is done twice:

- *plain*: the block is Django's `atomic()`;
- *coalesced*: the block is `coalesce()`, which promises to be an `atomic()` but for the number of
  statements and the moment of a database's error.

`comparison` looks at the tests that pass plain. One that doesn't pass coalesced must be listed in
``tests/django/differences.toml``, and one that is listed there must not pass.

Note [TransactionTestCase]
    Its tests run in the block as well. Some of them can't pass in a transaction: they ask for
    autocommit, for a durable block, or for rows that another connection sees. These fail plain, so
    nothing is asked of them; the report says how many they are. What is left are the tests that
    make sense in a transaction.

Note [Counted queries]
    A test that counts queries means those of the statements in its ``with`` block. So what was
    queued or put off before is sent before the count begins, and what is queued within before it
    ends.
"""
