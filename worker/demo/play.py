"""A day of the orders fleet: the fleet at work, traffic, an outage, and the check of the books."""

import asyncio
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from worker.demo.demo import INTERRUPTED, PATIENCE_SECONDS, verdict
from worker.demo.show import Show
from worker.demo.stage import Stage
from worker.demo.traffic import Outage, Traffic
from worker.settings import load
from worker.telemetry import logs

__all__ = ["Script"]

LOOK_SECONDS = 0.25
LONGEST_OUTAGE_SECONDS = 8.0
HASTY_SECONDS = 1.5
FOREVER_PER_SECOND = 20.0
LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Script:
    """What is to happen."""

    events: int = 2000
    is_forever: bool = False
    """Go on until Ctrl-C, at a slower pace and without an outage."""
    database: str | None = None
    """URL of the orders' database; unset, an SQLite file that goes with the demo."""
    per_second: float = 45.0
    mail_seconds: float = 0.2
    """How long the mail server takes for a mail."""

    @property
    def outage_seconds(self) -> float:
        """How long the mail server is down, from a third of the events on."""
        return min(LONGEST_OUTAGE_SECONDS, self.events / self.per_second / 3)

    async def play(self, show: Show, folder: Path) -> int:
        """Let it happen; return the exit status."""
        return await _Play(show, self).run(folder)


class _Play:
    """Runs the fleet of `worker/demo/fleet.yaml` on the embedded AWS and checks its books."""

    def __init__(self, show: Show, script: Script) -> None:
        self._show = show
        self._script = script
        self._address = ""

    async def run(self, folder: Path) -> int:
        fleet_file = resources.files(__package__).joinpath("fleet.yaml")
        with resources.as_file(fleet_file) as path, (folder / LOG).open("wb") as log:
            logs.configure("json", "info", log)
            database = self._script.database
            if database is None:
                database = f"sqlite:///{folder / 'orders.sqlite'}"
            environment = {"LONGSHORE_STATE_DIR": str(folder / "state"), "LONGSHORE_OUTBOX__DATABASE": database}
            settings = load(path, environ=environment)
            self._show.say("starting the embedded AWS, a mail server and two order services ...")
            async with Stage(settings, database, folder, mail_seconds=self._script.mail_seconds) as stage:
                self._show.say(f"{stage.resources_made} resources made: topics, queues, dead-letter queues, policies, subscriptions")  # fmt: skip
                return await self._play(stage)

    async def _play(self, stage: Stage) -> int:
        supervisor = stage.process.supervisor
        fleet = asyncio.create_task(stage.process.run(started=self._say_address), name="fleet")
        self._show.say(f"to join from another terminal: {stage.aws.shell_line}")
        is_complete = await self._perform(stage, fleet)
        is_interrupted = not is_complete and supervisor.is_draining and not supervisor.failure
        status = await _drain(stage, fleet, is_hasty=self._script.is_forever)
        if self._script.is_forever:
            self._show.say("drained")
            return status
        if is_interrupted:
            self._show.result(stage.books)
            self._show.say("interrupted: what was still in the queues is gone with the embedded AWS")
            return INTERRUPTED
        await stage.audit.close(stage.process, stage.clients, stage.shop)
        return self._verdict(stage, is_complete=is_complete)

    def _say_address(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/"
        self._show.say(f"status page: {self._address} (metrics: {self._address}metrics)")

    async def _perform(self, stage: Stage, fleet: asyncio.Task[int]) -> bool:
        """Let the day happen and watch until everything has ended; false when that was not to be."""
        script, supervisor = self._script, stage.process.supervisor
        traffic = Traffic(stage.shop)
        outage = Outage(stage.mail, self._show.say, seconds=script.outage_seconds)
        if script.is_forever:
            acts = [asyncio.create_task(traffic.run(None, per_second=FOREVER_PER_SECOND), name="traffic")]
        else:
            after = script.events / script.per_second / 3
            acts = [
                asyncio.create_task(traffic.run(script.events, per_second=script.per_second), name="traffic"),
                asyncio.create_task(outage.run(after_seconds=after), name="outage"),
            ]
        deadline = None
        try:
            with self._show as show:
                while not fleet.done() and not supervisor.is_draining:
                    stage.audit.look(stage.process, is_outage=outage.is_felt)
                    show.progress(stage.books, self._note(outage))
                    for act in acts:
                        if act.done():
                            act.result()  # what it failed with ends the demo
                    if all(act.done() for act in acts):
                        if stage.books.are_done:
                            return True
                        deadline = deadline or time.monotonic() + PATIENCE_SECONDS
                        if time.monotonic() > deadline:
                            return False
                    await asyncio.sleep(LOOK_SECONDS)
                return False
        finally:
            await _cancel(acts)

    def _note(self, outage: Outage) -> str:
        return f"{self._address}  {'the mail server is down' if outage.is_on else ''}"

    def _verdict(self, stage: Stage, *, is_complete: bool) -> int:
        self._show.result(stage.books)
        self._show.payments(stage.books)
        self._show.placements(stage.shop, self._script.mail_seconds, self._script.outage_seconds)
        balanced = "every event was handled or dead-lettered, in every queue"
        return verdict(self._show, stage.books.faults(), is_complete=is_complete, balanced=balanced)


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(stage: Stage, fleet: asyncio.Task[int], *, is_hasty: bool) -> int:
    """Drain, unless Ctrl-C has begun it; who has pressed Ctrl-C does not want to wait for retries."""
    supervisor = stage.process.supervisor
    if not supervisor.is_draining:
        supervisor.drain()
    if is_hasty:
        await asyncio.wait({fleet}, timeout=HASTY_SECONDS)
        if not fleet.done():
            supervisor.drain()
    return await fleet
