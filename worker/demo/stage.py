"""The demo's run: embedded AWS, topology, fleet, events, and the check of the books."""

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path

from worker.aws.session import AwsClients
from worker.aws.sns import Publication, publish_batch, topic_arn
from worker.aws.sqs import SqsSource
from worker.demo.books import Account, Books
from worker.demo.events import COUNTED_PRODUCT, STOCK, Event, events
from worker.demo.show import Show
from worker.engine.dead_letters import REASON_ATTRIBUTE
from worker.errors import LongshoreError
from worker.fleet.process import Process, load_routers, sqs_source
from worker.handlers.ledger import Ledger
from worker.local import EmbeddedAws
from worker.settings import FleetSettings, load
from worker.source import MAX_BATCH, ReceiveRequest
from worker.telemetry import logs
from worker.telemetry.metrics import QueueMetrics
from worker.topology import apply, wanted_by

__all__ = ["Demo"]

TOPIC = "order-events"
STOCKTAKE_SECONDS = 4.0
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.1
HASTY_SECONDS = 1.5
LOG = "log.jsonl"
FOREVER_RATE = 20
"""Events per second of `--forever`."""

EFFECTS = {"order-processing": ("orders", "cancellations"), "inventory-update": ("reservations",), "email-notification": ("mails",)}  # fmt: skip


class Demo:
    """Runs the fleet of `worker/demo/fleet.yaml` on the embedded AWS and checks its books."""

    def __init__(self, show: Show, *, count: int = 1000, is_forever: bool = False) -> None:
        self._show = show
        self._count = count
        self._is_forever = is_forever
        self._note = ""

    async def run(self) -> int:
        """Return 0 when the books balance, 1 when they do not or the demo was interrupted."""
        fleet_file = resources.files(__package__).joinpath("fleet.yaml")
        folder = Path(tempfile.mkdtemp(prefix="longshore-demo-"))
        with resources.as_file(fleet_file) as path, (folder / LOG).open("wb") as log:
            logs.configure("json", "info", log)
            status = await self._run(load(path, environ={}), folder)
        if status == 0:
            shutil.rmtree(folder)
        else:
            self._show.say(f"the workers' log is {folder / LOG}")
        return status

    async def _run(self, settings: FleetSettings, folder: Path) -> int:
        os.environ["ORDERS_DATABASE"] = str(folder / "orders.sqlite")  # the handlers open it by that name
        self._show.say("starting the embedded AWS ...")
        async with EmbeddedAws() as aws, AwsClients(aws.access) as clients:
            changes = await apply(wanted_by(settings), clients)
            self._show.say(f"{len(changes)} resources made: a topic, queues, dead-letter queues, subscriptions")
            ledger = Ledger(os.environ["ORDERS_DATABASE"])
            ledger.stock_up(STOCK, counting=COUNTED_PRODUCT, counted_until=time.time() + STOCKTAKE_SECONDS)
            process = Process(settings, load_routers(settings), aws.access)
            books = Books(settings)
            fleet = asyncio.create_task(process.run(started=self._say_address), name="fleet")
            is_complete = await self._perform(process, clients, books, fleet)
            is_interrupted = not is_complete and process.supervisor.is_draining and not process.supervisor.failure
            status = await _drain(process, fleet, is_hasty=self._is_forever)
            if self._is_forever:
                self._show.say("drained")
                return status
            await self._close(books, process, clients, ledger)
            ledger.close()
        if is_interrupted:
            self._show.result(books)
            self._show.say("interrupted: what was still in the queues is gone with the embedded AWS")
            return 1
        return self._verdict(books, is_complete=is_complete)

    def _say_address(self, port: int) -> None:
        self._note = f"look at http://127.0.0.1:{port}/api/status and /metrics"
        self._show.say(self._note)

    async def _perform(self, process: Process, clients: AwsClients, books: Books, fleet: asyncio.Task[int]) -> bool:
        """Publish, and watch until everything has ended; false when that was not to be."""
        publishing = asyncio.create_task(self._publish(clients, books), name="publish")
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            with self._show as show:
                while not fleet.done() and not process.supervisor.is_draining:
                    _read(process, books)
                    show.progress(books, self._note)
                    if publishing.done() and not self._is_forever:
                        publishing.result()
                        if books.are_done:
                            return True
                        if time.monotonic() > deadline:
                            return False
                    await asyncio.sleep(LOOK_SECONDS)
                return False
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)

    async def _publish(self, clients: AwsClients, books: Books) -> None:
        arn = await topic_arn(clients, TOPIC)
        source = events()
        if not self._is_forever:
            source = islice(source, self._count)
        for batch in _batches(source):
            errors = await publish_batch(clients, arn, [Publication(event.body, event.attributes) for event in batch])
            if any(errors):
                raise LongshoreError(f"SNS refused events of the demo: {next(filter(None, errors)).code}")
            for event in batch:
                books.publish(event)
            if self._is_forever:
                await asyncio.sleep(MAX_BATCH / FOREVER_RATE)

    async def _close(self, books: Books, process: Process, clients: AwsClients, ledger: Ledger) -> None:
        """Ask SQS and the database what they say of what the fleet has counted."""
        _read(process, books)
        for name, account in books.accounts.items():
            account.effects = sum(ledger.count(kind) for kind in EFFECTS[name])
            source = sqs_source(clients, process.settings.queues[name], QueueMetrics(name))
            account.depth = await source.depth()
            await _read_reasons(account, clients, process.settings, name)

    def _verdict(self, books: Books, *, is_complete: bool) -> int:
        self._show.result(books)
        faults = books.faults()
        for fault in faults:
            self._show.say(f"books do not balance: {fault}")
        if not is_complete:
            self._show.say("the demo ended before every event had")
        if faults or not is_complete:
            return 1
        self._show.say("books balance: every event was handled or dead-lettered, in every queue")
        return 0


async def _drain(process: Process, fleet: asyncio.Task[int], *, is_hasty: bool) -> int:
    """Drain, unless Ctrl-C has begun it; who has pressed Ctrl-C does not want to wait for an invoice."""
    if not process.supervisor.is_draining:
        process.supervisor.drain()
    if is_hasty:
        await asyncio.wait({fleet}, timeout=HASTY_SECONDS)
        if not fleet.done():
            process.supervisor.drain()
    return await fleet


def _read(process: Process, books: Books) -> None:
    for name, snapshot in process.metrics.snapshot().items():
        account, verbs = books.accounts[name], process.metrics.queue(name)
        account.received = snapshot["received"]
        account.handled = snapshot["settled"]["ack"]
        account.retried = snapshot["settled"]["retry"]
        account.dead_lettered = snapshot["settled"]["dead_letter"]
        account.lag_p50_seconds = verbs.lag_quantile(0.5)
        account.lag_p99_seconds = verbs.lag_quantile(0.99)


async def _read_reasons(account: Account, clients: AwsClients, settings: FleetSettings, name: str) -> None:
    dead_letter = settings.queues[name].dead_letter
    if dead_letter == "none":
        return
    source = SqsSource(clients, dead_letter.queue)
    while letters := await source.receive(ReceiveRequest(MAX_BATCH, 0, visibility_timeout_seconds=60)):
        for letter in letters:
            account.reasons[json.loads(letter.attributes[REASON_ATTRIBUTE].value)["reason"]] += 1


def _batches(source: Iterator[Event]) -> Iterator[Sequence[Event]]:
    while batch := list(islice(source, MAX_BATCH)):
        yield batch
