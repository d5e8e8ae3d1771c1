"""The demo's workers: processes of `longshore run`, as anybody starts them, and what they say of themselves."""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiohttp import ClientError, ClientSession, ClientTimeout

from worker.demo.tethered import Tethered
from worker.errors import LongshoreError

__all__ = ["Counts", "Workers"]

_RUN: Final = (sys.executable, "-c", "from worker.cli import main; main()", "run", "--config")
_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 30.0
"""Longer than `drain_seconds`."""
_ANSWER: Final = ClientTimeout(total=5)


class Counts(NamedTuple):
    """What the workers together have counted for a queue."""

    received: int = 0
    redelivered: int = 0
    handled: int = 0
    retried: int = 0
    dead_lettered: int = 0


class Workers:
    """So many workers of one fleet file, while inside `async with`; each has the environment of this process and `variables`."""

    def __init__(self, count: int, fleet: Path, folder: Path, variables: Mapping[str, str]) -> None:
        self.addresses: list[str] = []
        """Of their status pages."""
        self._names = [f"worker {number}" for number in range(1, count + 1)]
        self._fleet = fleet
        self._folder = folder
        self._environment = _environment(variables)
        self._running: list[Tethered] = []
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        try:
            self._session = ClientSession(timeout=_ANSWER)
            for name in self._names:
                log = self._folder / f"{name.replace(' ', '-')}.jsonl"
                command = (*_RUN, str(self._fleet))
                self._running.append(await Tethered.start(name, command, log, self._environment))
            self.addresses = await asyncio.gather(*map(_address, self._running))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def counts(self, queues: Mapping[str, object]) -> dict[str, Counts]:
        """Ask each of them; raise `LongshoreError` when one has ended, or does not answer."""
        totals = {name: Counter[str]() for name in queues}
        for status in await asyncio.gather(*map(self._status, self._running, self.addresses)):
            for name, total in totals.items():
                total.update(_counts(status["queues"].get(name)))
        return {name: Counts(**total) for name, total in totals.items()}

    async def drain(self) -> list[str]:
        """Stop all of them with SIGTERM; return what is wrong with how they ended, one sentence each."""
        statuses = await asyncio.gather(*(each.end(within_seconds=_END_SECONDS) for each in self._running))
        return [
            f"{worker.name} ended with status {status}: {worker.last_words}"
            for worker, status in zip(self._running, statuses, strict=True)
            if status != 0
        ]

    async def _status(self, worker: Tethered, address: str) -> dict[str, Any]:
        assert self._session is not None  # noqa: S101 - entered
        try:
            async with self._session.get(f"{address}/api/status") as answer:
                status: dict[str, Any] = await answer.json()
        except (ClientError, TimeoutError, OSError) as error:
            if worker.status is not None:
                raise LongshoreError(
                    f"{worker.name} has ended unasked with status {worker.status}: {worker.last_words}"
                ) from None
            raise LongshoreError(f"{worker.name} does not answer ({type(error).__name__})") from None
        return status

    async def _end(self) -> None:
        try:
            await self.drain()
        finally:
            if self._session is not None:
                await self._session.close()


async def _address(worker: Tethered) -> str:
    """Wait until the worker has logged where its status page is."""
    ends_at = time.monotonic() + _START_SECONDS
    while True:
        for line in worker.log.read_bytes().splitlines(keepends=True):
            if b'"started"' in line and line.endswith(b"\n"):
                return str(json.loads(line)["status"])
        if worker.status is not None or time.monotonic() > ends_at:
            raise LongshoreError(f"{worker.name} did not start: {worker.last_words}")
        await asyncio.sleep(0.05)


def _counts(queue: Mapping[str, Any] | None) -> dict[str, int]:
    if queue is None:  # its consumer is not there yet
        return {}
    settled = queue["settled"]
    return {
        "received": queue["received"],
        "redelivered": queue["redelivered"],
        "handled": settled["ack"],
        "retried": settled["retry"] + queue["retried_in_place"],
        "dead_lettered": settled["dead_letter"],
    }


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables without those that lead to another AWS or another fleet, and those that are given."""
    ours = {name: value for name, value in os.environ.items() if not name.upper().startswith(("AWS_", "LONGSHORE_"))}
    return {**ours, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
