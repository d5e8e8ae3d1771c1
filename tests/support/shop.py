"""A shop on an AWS of this machine: one queue, its dead-letter queue, and real worker processes to be stopped and starved."""

import asyncio
import json
import os
import re
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from support.localstack import LocalStack

from worker.aws.session import AwsClients
from worker.aws.sqs import SqsSource
from worker.errors import SourceError
from worker.local import EmbeddedAws
from worker.source import Depth

HANDLERS = """
import asyncio, os, time
from pathlib import Path
from typing import Any

from worker import Batch, Message, PermanentError, Router, TransientError

router = Router()
batches = Router()
once = Router()
LEDGER = os.open("ledger.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(verb: str, message: Message[Any]) -> None:
    os.write(LEDGER, f"{verb} {message.event['n']} {os.getpid()} {time.time()}\\n".encode())

@router.on("*")
async def handle(message: Message[dict[str, Any]]) -> None:
    note("start", message)
    time.sleep(message.event.get("blocks", 0))
    await asyncio.sleep(message.event.get("seconds", 0))
    if message.event.get("kills"):
        os._exit(137)
    if message.event.get("fail") == "permanent":
        raise PermanentError("sold out")
    note("end", message)

@batches.on("*", batch=Batch(10, window_seconds=1))
async def handle_many(messages: list[Message[dict[str, Any]]]) -> None:
    for message in messages:
        note("start", message)
    await asyncio.sleep(0.2)
    if any(message.event.get("kills") for message in messages):
        os._exit(137)
    for message in messages:
        note("end", message)

@once.on("*", idempotency_key="n")
async def handle_once(message: Message[dict[str, Any]]) -> None:
    note("start", message)
    await asyncio.sleep(message.event.get("seconds", 0))
    note("end", message)
"""


@dataclass
class Worker:
    """A `longshore run` process."""

    process: asyncio.subprocess.Process
    log: Path

    async def terminate(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text()

    async def ask(self, path: str) -> tuple[int, str]:
        """Ask its status server; return the HTTP status and the body."""
        (address,) = re.findall(r'"status":"(http[^"]+)"', self.output)
        async with ClientSession() as session, session.get(address + path) as answer:
            return answer.status, await answer.text()

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        """Ask `/readyz`; return the HTTP status and what it says."""
        status, body = await self.ask("/readyz")
        return status, json.loads(body)


class Shop:
    """One queue with its dead-letter queue, a fleet file, handlers that keep a ledger, and workers on them."""

    def __init__(self, folder: Path, queue: str, clients: AwsClients, aws: EmbeddedAws | LocalStack) -> None:
        self.folder = folder
        self.queue = queue
        self.source = SqsSource(clients, queue, dead_letter=f"{queue}-dlq")
        self.dead_letters = SqsSource(clients, f"{queue}-dlq")
        self.environment: dict[str, str] = {**aws.environment}
        self.has_uvloop = True
        self._clients = clients
        self._workers: list[Worker] = []
        self._logs = count()

    def configure(self, *, process: str = "", router: str = "router", **settings: object) -> None:
        """Write the fleet file: settings of the queue, and of the process as YAML; `batches` and `once` are the other routers."""
        lines = "\n".join(f"    {name}: {json.dumps(value)}" for name, value in settings.items())
        text = f"service: shop\nserver: {{port: 0}}\n{textwrap.dedent(process)}\nqueues:\n  {self.queue}:\n    handlers: shop_handlers:{router}\n{lines}\n"
        (self.folder / "fleet.yaml").write_text(text)
        (self.folder / "shop_handlers.py").write_text(HANDLERS)

    async def open(self, *, max_receive_count: int | None = 10) -> None:
        """Make the queue, and its dead-letter queue unless `max_receive_count` is `None`."""
        attributes = {}
        if max_receive_count is not None:
            url = (await self._clients.settle.call("create_queue", QueueName=f"{self.queue}-dlq"))["QueueUrl"]
            facts = await self._clients.settle.call("get_queue_attributes", QueueUrl=url, AttributeNames=["QueueArn"])
            policy = {"deadLetterTargetArn": facts["Attributes"]["QueueArn"], "maxReceiveCount": max_receive_count}
            attributes["RedrivePolicy"] = json.dumps(policy)
        await self._clients.settle.call("create_queue", QueueName=self.queue, Attributes=attributes)

    async def demolish(self) -> None:
        """Delete the queues that there are."""
        for name in (self.queue, f"{self.queue}-dlq"):
            with suppress(SourceError):
                url = (await self._clients.settle.call("get_queue_url", QueueName=name))["QueueUrl"]
                await self._clients.settle.call("delete_queue", QueueUrl=url)

    async def send(self, count: int, **event: object) -> None:
        """Send events numbered from 0."""
        await self.send_bodies([json.dumps({"n": n, **event}) for n in range(count)])

    async def send_bodies(
        self, bodies: Sequence[str], attributes: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Send messages, ten a call, with attributes as SQS has them."""
        url = (await self._clients.settle.call("get_queue_url", QueueName=self.queue))["QueueUrl"]
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(place), "MessageBody": body, "MessageAttributes": attributes or {}}
                for place, body in enumerate(bodies[start : start + 10])
            ]
            answer = await self._clients.settle.call("send_message_batch", QueueUrl=url, Entries=entries)
            assert not answer.get("Failed")

    async def start(self) -> Worker:
        """Start a worker and return once it says so."""
        log = self.folder / f"worker-{next(self._logs)}.log"  # also where several start side by side
        hide = "" if self.has_uvloop else "import sys; sys.modules['uvloop'] = None; "
        program = f"{hide}from worker.cli import main; main()"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", program, "run"),
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
            )
        worker = Worker(process, log)
        self._workers.append(worker)
        while '"started"' not in worker.output:
            assert process.returncode is None, worker.output
            await asyncio.sleep(0.05)
        return worker

    @property
    def handled(self) -> Counter[int]:
        """How often each event's handler ended well."""
        return self._noted("end")

    @property
    def started(self) -> Counter[int]:
        """How often each event's handler began."""
        return self._noted("start")

    def _noted(self, verb: str) -> Counter[int]:
        ledger = self.folder / "ledger.txt"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return Counter(int(line.split()[1]) for line in lines if line.startswith(verb))

    async def depth(self) -> Depth:
        return await self.source.depth()

    @staticmethod
    async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], *, seconds: float = 60) -> None:
        """Wait until something is so; the bound only ends a broken test."""
        async with asyncio.timeout(seconds):
            while True:
                found: Any = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.1)

    async def is_drained(self) -> bool:
        """Whether SQS has nothing left."""
        depth = await self.depth()
        return not (depth.visible or depth.in_flight or depth.delayed)

    async def close(self) -> None:
        """End the workers, and print what they warned of: pytest shows it beside a failure."""
        for worker in self._workers:
            if worker.process.returncode is None:
                await worker.kill()
            warnings = [line for line in worker.output.splitlines() if '"level":"info"' not in line]
            print(f"{worker.log.name}, process {worker.process.pid}:", *warnings, sep="\n")  # noqa: T201
