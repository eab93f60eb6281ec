"""Clusters are tormented as local pools are: the same scripts, the same oracle."""

from __future__ import annotations

import pytest

from tests.torment.conftest import start, transactional_db

pytest.register_assert_rewrite("tests.torment.oracle", "tests.torment.program")

__all__ = ["start", "transactional_db"]
