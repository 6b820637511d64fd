"""Pages of a list, and the cursor that leads from one to the next."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import BindParameter, Integer, bindparam

from service.errors import FieldError, InvalidInput

Item = TypeVar("Item")

# How many rows a query for a page reads, written into the statement: PostgreSQL plans a prepared one for a tenth of all
# rows where it does not know, or plans it anew each time. The price: pages of another length are another statement.
ROWS: BindParameter[int] = bindparam("rows", type_=Integer, literal_execute=True)


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A page of a list: its items in the order of their query, and the cursor of the next page, None on the last
    one."""

    items: list[Item]
    next_cursor: str | None


def page_of(rows: Sequence[Item], limit: int, place: Callable[[Item], Sequence[int]]) -> Page[Item]:
    """Make a page of at most `limit` + 1 rows, of which one too many tells that there is another page; `place` gives
    the numbers of a row that its cursor is made of."""
    return Page(list(rows[:limit]), encode_cursor(*place(rows[limit - 1])) if len(rows) > limit else None)


def encode_cursor(*numbers: int) -> str:
    """The cursor that is made of these numbers, as URL-safe base64."""
    return base64.urlsafe_b64encode(".".join(map(str, numbers)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[int]:
    """The `length` numbers that a cursor is made of, all from 1. Raises InvalidInput when it is not such a cursor."""
    try:
        numbers = [int(part) for part in base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).split(b".")]
        if len(numbers) != length or not all(0 < number < 2**63 for number in numbers):
            raise ValueError
        return numbers
    except (ValueError, binascii.Error):
        message = "not a cursor of this list; take next_cursor of the page before, or leave it out"
        raise InvalidInput([FieldError("cursor", cursor, message)]) from None
