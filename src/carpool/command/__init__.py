"""``manage.py carpool``: its arguments, and what becomes of them.

::

    arguments ──▶ function, source, options ──▶ carpool.run() ──▶ output, exit code

The command itself, in ``management/commands``, parses, calls and prints; all the rest is here, and
none of it knows more of a run than its report.
"""
