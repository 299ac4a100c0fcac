"""Batches: tensors that have one row for each pattern, taken, moved and joined together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Base of dataclasses whose fields are tensors (B, ...), batches themselves, or None where there is nothing."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, index: Any) -> Self:
        """Some of the rows: a slice, indices or a boolean mask."""
        return self._each(lambda column: column.take(index) if isinstance(column, Batch) else column[index])

    def to(self, where: Any) -> Self:
        """The same on another device, or as another type."""
        return self._each(lambda column: column.to(where))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of several, one after the other; a field is None in all of them, or in none."""
        import torch

        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}

        def joined(of: list[Any]) -> Any:
            return None if of[0] is None else of[0].cat(of) if isinstance(of[0], Batch) else torch.cat(of)

        return cls(**{name: joined(of) for name, of in columns.items()})

    def _each(self, change: Callable[[Any], Any]) -> Self:
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if one is None else change(one) for name, one in columns.items()})
