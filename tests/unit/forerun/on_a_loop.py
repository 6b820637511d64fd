"""An asynchronous client for tests that are not asynchronous: every coroutine runs to its end on one event loop."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, Self

from forerun.jobs import AsyncJobHandle


class OnALoop:
    """Wraps `inner`, an AsyncClient or a handle that one gave: each coroutine becomes a method with its result, and
    each asynchronous generator an iterator."""

    def __init__(self, runner: asyncio.Runner, inner: Any) -> None:
        self._runner, self._inner = runner, inner

    def __enter__(self) -> Self:
        self._runner.run(self._inner.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._inner.__aexit__(*error))

    def __repr__(self) -> str:
        return repr(self._inner).removeprefix("Async")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return (lambda *args, **kwargs: self._waited_for(found(*args, **kwargs))) if callable(found) else found

    def _waited_for(self, started: Any) -> Any:
        if isinstance(started, AsyncGenerator):
            return self._items(started)
        assert isinstance(started, Coroutine)
        result = self._runner.run(started)
        return OnALoop(self._runner, result) if isinstance(result, AsyncJobHandle) else result

    def _items(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self._runner.run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._runner.run(items.aclose())


async def _next(items: AsyncGenerator[Any, None]) -> Any:
    return await anext(items)
