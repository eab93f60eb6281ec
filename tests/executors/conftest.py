"""Contract tests live in a module that isn't a test module, so its asserts are asked for."""

from __future__ import annotations

import pytest

from tests.executors.database import transactional_db

pytest.register_assert_rewrite("tests.executors.contract")

__all__ = ["transactional_db"]
