"""The processes of a benchmark: started on a core of their own, their CPU and memory read from Linux's /proc."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["CONSUMER_CORE", "LONGSHORE", "STUB_CORE", "Program", "Stub", "environment"]

ROOT = Path(__file__).parents[1]
LONGSHORE = (sys.executable, "-c", "from worker.cli import main; main()")
"""`longshore`, also where no script was installed."""

_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
CONSUMER_CORE, STUB_CORE = _CORES[0], _CORES[-1]
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_WARM_UP_SECONDS = 60.0
_SETTLE_SECONDS = 20.0
_END_SECONDS = 30.0


class Program:
    """A process on one core, with all that it starts; a context manager that ends it with SIGTERM."""

    def __init__(
        self,
        command: Sequence[str],
        core: int,
        *,
        extra: Mapping[str, str] | None = None,
        output: int = subprocess.DEVNULL,
    ) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, env=environment() | dict(extra or {}), cwd=ROOT
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {core})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the process, if it has not ended yet."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def cpu_seconds(self) -> float:
        """User and system time of the process and its descendants until now."""
        ticks = sum(int(field) for pid in self._tree() for field in _stat(pid)[11:15])
        return ticks / _TICKS_PER_SECOND

    def rss_bytes(self) -> int:
        """Resident memory of the process and its descendants now."""
        pages = sum(int(field) for pid in self._tree() for field in _stat(pid)[21:22])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _tree(self) -> Iterator[int]:
        """Yield the ids of the process and of its descendants."""
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and (fields := _stat(int(folder.name))):
                children.setdefault(int(fields[1]), []).append(int(folder.name))
        found = [self.process.pid]
        for pid in found:
            yield pid
            found.extend(children.get(pid, ()))


class Stub(Program):
    """The stub's process and what it has counted."""

    def __init__(self) -> None:
        super().__init__((sys.executable, "-m", "benchmarks.stub"), STUB_CORE, output=subprocess.PIPE)
        assert self.process.stdout is not None  # noqa: S101  # it is a pipe
        self.endpoint = self.process.stdout.readline().decode().strip()

    def counted(self) -> Mapping[str, Any]:
        """Return `calls` by operation and `deleted` messages by queue."""
        return self._get("")

    def deleted(self, queue: str) -> int:
        """Return how many messages of the queue were received and deleted."""
        count: int = self.counted()["deleted"].get(queue, 0)
        return count

    def in_flight(self) -> int:
        """Return how many messages of all queues were received and not deleted."""
        counted = self.counted()
        left: int = counted["received"] - sum(counted["deleted"].values())
        return left

    def supply(self, queue: str) -> None:
        """Give messages to this queue alone; receives of all others wait."""
        self._get(queue)

    def _get(self, path: str) -> Mapping[str, Any]:
        with urllib.request.urlopen(f"{self.endpoint}/{path}", timeout=10) as answer:  # noqa: S310  # our own, on loopback
            counted: Mapping[str, Any] = json.load(answer)
        return counted

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that lead any AWS SDK here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        }

    def wait_until_deleted(self, count: int, queue: str, program: Program) -> None:
        """Wait until so many messages of the queue were deleted; raise `SystemExit` when the program does not do it."""
        self._wait(lambda: self.deleted(queue) >= count, program)

    def wait_until_called(self, operation: str, program: Program) -> None:
        """Wait for the first call of an operation; raise `SystemExit` when the program does not make it."""
        self._wait(lambda: operation in self.counted()["calls"], program)

    def _wait(self, has_come: Callable[[], bool], program: Program) -> None:
        ends_at = time.monotonic() + _WARM_UP_SECONDS
        while not has_come():
            if program.process.poll() is not None or time.monotonic() > ends_at:
                raise SystemExit(f"{program.process.args!r} does not consume; what it wrote stands above")
            time.sleep(0.1)

    def wait_until_settled(self) -> None:
        """Wait until nothing is in flight; raise `SystemExit` when that does not come."""
        ends_at = time.monotonic() + _SETTLE_SECONDS
        while left := self.in_flight():
            if time.monotonic() > ends_at:
                raise SystemExit(f"{left} messages are not deleted")
            time.sleep(0.05)


def environment() -> dict[str, str]:
    """Return the caller's environment without what would lead a benchmark elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LONGSHORE_"))}


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name, parent first but one; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
