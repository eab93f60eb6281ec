"""What may be given as ``executor=`` besides names and pools: an engine that has workers elsewhere.

An engine is what its user holds: a client, an app and what is to be done with them. For each run it
makes an executor.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carpool.executors.remote import Parcel, RemoteExecutor
    from carpool.interrupts import Interrupts

NAMES = ("celery",)
"""Engines that can be had by name, since the project has one of them."""


class Engine(ABC):
    """Makes executors, one for each run."""

    @abstractmethod
    def check(self, *, journal: bool) -> None:
        """Refuse what can't work; ``journal``: whether the run has one. Called before `executor`.

        Raises:
            ConfigurationError: with the cause and the remedy.
        """

    @abstractmethod
    def executor(
        self, parcel: Parcel, workers: int | None, interrupts: Interrupts
    ) -> RemoteExecutor:
        """Return an executor that is not started; it may never be.

        ``workers``: as given to `run`; None: as many as the engine has.
        """


def is_engine(value: Any) -> bool:
    """Tell whether that is an engine, or what one can be made of."""
    if isinstance(value, Engine) or (isinstance(value, str) and value in NAMES):
        return True
    return is_dask_client(value)


def is_dask_client(value: Any) -> bool:
    """Tell whether that is a ``distributed.Client``, which exists only if it was imported."""
    module = sys.modules.get("distributed")
    return module is not None and isinstance(value, module.Client)
