"""`Together`: entries that come at the same time, or while a call is under way, go out in one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Together"]

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Makes one call at a time, each with all entries that wait for it, up to `most`.

    A lone entry does not wait. What the call raises, each of its entries raises.
    """

    def __init__(self, call: Callable[[Sequence[T]], Awaitable[Sequence[R]]], name: str, *, most: int = 500) -> None:
        self._call = call
        self._name = name
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._caller: asyncio.Task[None] | None = None

    async def submit(self, entry: T) -> R:
        """Return what the call says of the entry."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, answer))
        if self._caller is None:
            self._caller = asyncio.create_task(self._send_all(), name=self._name)
        return await answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                sent, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._send(sent)
        finally:
            self._caller = None

    async def _send(self, sent: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._call([entry for entry, _ in sent])
        except Exception as error:  # noqa: BLE001  # raised where the entries were submitted
            for _, answer in sent:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), result in zip(sent, results, strict=True):
            if not answer.done():
                answer.set_result(result)
