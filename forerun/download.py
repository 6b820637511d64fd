"""Downloads files from the service: they are there whole and as they were sent, or not at all."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from forerun.errors import ApiError
from forerun.exchange import PAUSES, RETRIES, Exchange


async def save(exchange: Exchange, path: str, params: Mapping[str, Any], to: Path) -> Path:
    """Write what `path` answers with into the file `to`, by way of one beside it that is renamed in the end; return
    `to`.

    A download that breaks begins anew. Raises what `Exchange` raises, and OSError where the file cannot be written.
    """
    if to.is_dir():
        raise IsADirectoryError(f"{to} is a folder; name the file to write")
    unfinished = to.with_name(f".{to.name}.{uuid4().hex[:8]}")
    try:
        for pause in (*PAUSES[:RETRIES], None):
            try:
                await _fill(exchange, path, params, unfinished)
                break
            except httpx.RequestError as error:
                await exchange.pause_or_raise(error, pause)
        return unfinished.replace(to)
    finally:
        unfinished.unlink(missing_ok=True)


async def _fill(exchange: Exchange, path: str, params: Mapping[str, Any], file: Path) -> None:
    async with exchange.connection.stream("GET", path, params=params) as response:
        await exchange.raise_unless_success(response)
        digest = hashlib.sha256()
        with file.open("wb") as written:
            async for chunk in exchange.connection.chunks(response):
                digest.update(chunk)
                written.write(chunk)
    if response.headers.get("Repr-Digest") != f"sha-256=:{b64encode(digest.digest()).decode()}:":
        raise ApiError.unexpected(response, "with a file whose SHA-256 is not the one that it names")
