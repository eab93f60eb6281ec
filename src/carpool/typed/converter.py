"""What every kind of typed item has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, get_origin

from carpool.cells import refuse_surplus


class Converter(ABC):
    """Turns an item into an instance of ``target``, a class or a generic alias of one.

    It travels as its target and makes the rest anew: what libraries compile need not pickle.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.type: type[Any] = get_origin(target) or target

    def __call__(self, item: Any) -> Any:
        """Return the item as an instance of the class; itself, if it is one.

        Raises:
            InvalidItem: with the validator's own message.
        """
        if isinstance(item, self.type):
            return item
        refuse_surplus(item)
        return self.convert(item)

    @abstractmethod
    def convert(self, item: Any) -> Any:
        """Return an instance made of an item that is none."""

    def __reduce__(self) -> Any:
        return type(self), (self.target,)

    def __repr__(self) -> str:
        return f"<converter to {self.type.__module__}.{self.type.__qualname__}>"
