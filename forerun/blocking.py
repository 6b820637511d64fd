"""Makes of a class of coroutines a class of plain methods, without an event loop.

The coroutines of a class over a `BlockingConnection` never suspend: each runs to its end at its first step, as Gel's
Python client has it. So `Client` is `Calls` with `blocking` around every method, and nothing of it is written twice.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import update_wrapper
from inspect import signature
from types import GenericAlias
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, get_origin, overload

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Facade(Generic[A]):
    """A class of plain methods that stands before `inner`, an object of a class whose coroutines never suspend."""

    def __init__(self, inner: A) -> None:
        self._inner = inner


@overload
def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[A], P], T]: ...
@overload
def blocking(
    method: Callable[Concatenate[A, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Facade[A], P], Iterator[T]]: ...
def blocking(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of the facade before a class with this coroutine, or asynchronous generator: the same name, parameters
    and docstring, and a result, or an iterator, in its place."""

    returned = signature(method).return_annotation
    if get_origin(returned) is AsyncGenerator:
        returned = GenericAlias(Iterator, get_args(returned)[:1])

    @named_as(method, returned)
    def plain(self: Facade[Any], *args: Any, **kwargs: Any) -> Any:
        started = method(self._inner, *args, **kwargs)
        return run(started) if isinstance(started, Coroutine) else iterate(started)

    return plain


def named_as(method: Callable[..., Any], returned: Any) -> Callable[[F], F]:
    """A decorator that gives a function the name, parameters and docstring of `method`, but another result."""

    def decorate(function: F) -> F:
        update_wrapper(function, method)
        function.__signature__ = signature(method).replace(return_annotation=returned)  # type: ignore[attr-defined]
        return function

    return decorate


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not suspend to its end: return what it returns, raise what it raises."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        coroutine.close()
    raise AssertionError(f"{coroutine} waits for something, and there is no event loop")


def iterate(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield the items of an asynchronous generator that does not suspend, each as it is wanted; the generator is closed
    with this iterator."""
    try:
        while True:
            try:
                item = run(items.__anext__())
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(items.aclose())
