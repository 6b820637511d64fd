"""Pages of a list, and the cursor that leads from one to the next."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import FieldError, InvalidInput

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Items in the order of their query; `next_cursor` is None on the last page."""

    items: Sequence[Item]
    next_cursor: str | None


def page_of(rows: Sequence[Item], limit: int, place: Callable[[Item], Sequence[int]]) -> Page[Item]:
    """Of `limit` + 1 rows at most: one too many tells that there is another page. `place`: the numbers of a row's
    cursor."""
    return Page(rows[:limit], encode_cursor(*place(rows[limit - 1])) if len(rows) > limit else None)


def encode_cursor(*numbers: int) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, numbers)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[int]:
    """The `length` numbers of a cursor: ids and numbers, all from 1. Raises InvalidInput."""
    try:
        numbers = [int(part) for part in base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).split(b".")]
        if len(numbers) != length or not all(0 < number < 2**63 for number in numbers):
            raise ValueError
        return numbers
    except (ValueError, binascii.Error):
        message = "not a cursor of this list; take next_cursor of the page before, or leave it out"
        raise InvalidInput([FieldError("cursor", cursor, message)]) from None
