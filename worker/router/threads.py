"""Sync handlers run in daemon threads: one per running call, reused, and gone after some idle seconds."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

__all__ = ["HANDLER_THREADS", "RUN_IN_PLACE", "Threads"]

R = TypeVar("R")

RUN_IN_PLACE: Final[ContextVar[bool]] = ContextVar("longshore_run_in_place", default=False)
"""Set in virtual time, which threads do not know: sync functions then run on the event loop itself."""


class Threads:
    """Daemon threads without a bound of their own: the engine's slots bound how many calls run.

    asyncio's default executor would not do: it is bounded by the number of cores, and a hung call in it keeps the
    process from exiting.
    """

    def __init__(self, *, idle_seconds: float = 10.0) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._idle: list[_Thread] = []
        self._numbers = itertools.count(1)

    async def run(self, function: Callable[..., R], *args: Any) -> R:
        """Return what the function returns or raise what it raises; it sees the caller's context variables.

        A thread cannot be cancelled: a cancelled caller waits until the function has really ended, then
        `CancelledError` goes on and what the function returned or raised is dropped.
        """
        if RUN_IN_PLACE.get():
            return copy_context().run(function, *args)
        call = _Call(function, args)
        self._take().start(call)
        is_cancelled = False
        while not call.ended.done():
            try:
                await asyncio.wait([call.ended])
            except asyncio.CancelledError:
                is_cancelled = True
        if is_cancelled:
            raise asyncio.CancelledError
        if call.error is not None:
            error, call.error = call.error, None
            try:
                raise error
            finally:
                del error  # else it keeps itself alive by its traceback, and the message with it
        return call.result  # type: ignore[no-any-return]  # what the function of type R returned

    def give_back(self, thread: "_Thread") -> None:
        """Keep a thread that has ended its call for the next one."""
        with self._lock:
            self._idle.append(thread)

    def retire(self, thread: "_Thread") -> bool:
        """Forget a thread that waited long enough; false when it has just been taken for a call."""
        with self._lock:
            if thread in self._idle:
                self._idle.remove(thread)
                return True
            return False

    def _take(self) -> "_Thread":
        with self._lock:
            if self._idle:
                return self._idle.pop()  # the one used last, so that surplus threads grow old
        return _Thread(self, f"longshore-handler-{next(self._numbers)}", self._idle_seconds)


class _Call:
    """One call of a sync function, started on the event loop and run in a thread."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self._context: Context = copy_context()
        self._function = function
        self._args = args

    def run(self) -> None:
        try:
            self.result = self._context.run(self._function, *self._args)
        except BaseException as error:  # noqa: BLE001 - raised again on the event loop
            self.error = error

    def tell(self) -> None:
        """Wake the waiting caller, unless its event loop is gone."""
        with contextlib.suppress(RuntimeError):
            self.ended.get_loop().call_soon_threadsafe(self.ended.set_result, None)


class _Thread:
    """A daemon thread that runs one call after the other."""

    def __init__(self, threads: Threads, name: str, idle_seconds: float) -> None:
        self._threads = threads
        self._idle_seconds = idle_seconds
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self, call: _Call) -> None:
        self._calls.put(call)
        if self._thread.ident is None:
            self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=self._idle_seconds)
            except Empty:
                if self._threads.retire(self):
                    return
                continue  # taken in this very moment: its call is about to arrive
            call.run()
            self._threads.give_back(self)  # first, so that the woken caller finds it for its next call
            call.tell()
            del call  # an idle thread keeps no message alive


HANDLER_THREADS: Final = Threads()
"""The threads of this process's sync handlers."""
