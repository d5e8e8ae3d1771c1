"""`longshore publish`."""

import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:  # what it needs is imported when it runs
    from worker.cli.publish_input import Input, Line
    from worker.cli.publish_sending import Sending
    from worker.publisher import Outgoing, Publisher
    from worker.publisher.composer import Moment
    from worker.settings import AwsSettings, OffloadSettings

__all__ = ["choose_topic", "publish"]

PATIENCE_SECONDS: Final = 10.0
"""How long AWS may take nothing before a person wants to know."""
HASTE_SECONDS: Final = 0.1
"""What is left for the end after a second Ctrl-C."""
SHOWN_SKIPS: Final = 20
INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells have it."""


def publish(  # noqa: PLR0913, PLR0917 - a command has options
    event_type: Annotated[str | None, typer.Argument(help="For events that name none, such as order.created.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="One event: its payload as JSON.")] = None,
    file: Annotated[str | None, typer.Option("--file", help="Many: a file of JSON lines; - reads from a pipe.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="Its name or ARN; the fleet file's only one.")] = None,
    group_id: Annotated[
        str | None, typer.Option("--group-id", help="For events that name none; FIFO wants it.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", help="For events that name none: when handling them is too late.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="At most so many events a second.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave broken lines out and send the others.")] = False,  # noqa: FBT002
    from_line: Annotated[int | None, typer.Option("--from-line", help="Leave out the lines before it.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="The fleet file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Publish one event, or a file of them, to a topic.

    A line has an event_type and data, and attributes, group_id, deduplication_id or expires_at if you like; or it is an object with an
    event, published as it is; or a payload of EVENT_TYPE.

    A file is read twice: unless --skip-bad is given, nothing is sent when one of its lines is broken. A pipe goes as it
    comes.
    """
    from worker.cli.publish_input import read_moment

    wish = _Wish(event_type, data, file, rate, group_id, read_moment(expires_at), skip_bad, from_line, as_json)
    wish.check()
    raise typer.Exit(_run(wish, *choose_topic(topic, config)))


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was asked for."""

    event_type: str | None
    data: str | None
    file: str | None
    rate: float | None
    group_id: str | None
    expires_at: "Moment | None"
    skips_bad: bool
    from_line: int | None
    as_json: bool

    def check(self) -> None:
        """Raise `UsageError` for what does not go together."""
        from worker.errors import UsageError

        if self.data is None and self.file is None:
            raise UsageError("there is nothing to publish: give one event with --data, or many with --file")
        if self.data is not None and self.file is not None:
            raise UsageError("--data and --file are both given: give one event with --data, or many with --file")
        if self.rate is not None and not (self.rate > 0 and math.isfinite(self.rate)):
            raise UsageError(
                f"--rate is {self.rate:g}, but must be more than 0 events a second: leave it out for no limit"
            )
        if self.from_line is not None and self.from_line < 1:
            raise UsageError(f"--from-line is {self.from_line}, but the first line is 1")
        for option, is_given in (
            ("--rate", self.rate is not None),
            ("--skip-bad", self.skips_bad),
            ("--from-line", self.from_line is not None),
        ):
            if is_given and self.file is None:
                raise UsageError(f"{option} has no effect on one event: leave it out, or give many with --file")

    def read(self, line: "Line") -> "Outgoing":
        """Return the event of a line."""
        return self.dated(line.read(self.event_type, self.group_id))

    def dated(self, outgoing: "Outgoing") -> "Outgoing":
        """Return the event with its deadline, which is ours where it names none."""
        return outgoing if outgoing.expires_at is not None else outgoing._replace(expires_at=self.expires_at)


def choose_topic(topic: str | None, config: Path | None) -> "tuple[str, AwsSettings | None, OffloadSettings | None]":
    """Return the topic's address, where AWS is, and where its large payloads go; a topic that is named needs no fleet file."""
    from worker.errors import ConfigError
    from worker.settings import load

    try:
        settings = load(config)
    except ConfigError as error:
        if config is not None or not str(error).startswith("no fleet file was found"):
            raise
        if topic is None:
            raise ConfigError(
                "no topic is named, and there is no fleet file to take it from: name one with --topic"
            ) from None
        return topic, None, None
    known = settings.topics
    if topic is None:
        if len(known) == 1:
            (only,) = known.values()
            return only.address, settings.aws, only.large_payloads
        names = f"has the topics {', '.join(known)}" if known else "has no topics"
        raise ConfigError(f"the fleet file {names}: name the one to publish to with --topic")
    if topic in known:
        return known[topic].address, settings.aws, known[topic].large_payloads
    if topic.startswith("arn:"):
        return topic, settings.aws, None
    nearest = get_close_matches(topic, known, n=1)
    allowed = f"; allowed are {', '.join(known)}, or an ARN" if known else "; give its ARN, or declare it in topics"
    advice = f"; did you mean {nearest[0]}?" if nearest else allowed
    raise ConfigError(f"--topic {topic} is not a topic of the fleet file{advice}")


def _run(wish: _Wish, topic: str, aws: "AwsSettings | None", large: "OffloadSettings | None") -> int:
    from worker.publisher import Publisher
    from worker.telemetry import logs

    publisher = Publisher(topic, aws=aws, patience_seconds=PATIENCE_SECONDS, large_payloads=large)
    logs.configure("console", "warning", _Stderr())  # type: ignore[arg-type]  # all that it uses of a stream
    try:
        if wish.file is None:
            return asyncio.run(_publish_one(wish, publisher))
        return _publish_file(wish, publisher, wish.file)
    except KeyboardInterrupt:  # before the signals are ours
        typer.echo("longshore: interrupted: nothing was surely published", err=True)
        return INTERRUPTED


async def _publish_one(wish: _Wish, publisher: "Publisher") -> int:
    from worker.errors import UsageError
    from worker.publisher import Outgoing, PublishError
    from worker.publisher.lines import LineError, read_line, read_payload

    text = wish.data or ""
    try:
        if wish.event_type is None:
            outgoing = read_line(text, group_id=wish.group_id)
        else:
            outgoing = Outgoing(wish.event_type, read_payload(text), group_id=wish.group_id)
    except LineError as error:
        raise UsageError(f"--data {error}") from None
    try:
        async with publisher:
            message_id = await (await publisher.submit(wish.dated(outgoing)))
    except PublishError as error:
        raise _told(error, str(error)) from None
    said = {"topic": publisher.topic, "published": 1, "message_id": message_id}
    typer.echo(
        json.dumps(said) if wish.as_json else f"published {outgoing.event_type} to {publisher.topic}: {message_id}"
    )
    return 0


def _publish_file(wish: _Wish, publisher: "Publisher", path: str) -> int:
    from worker.cli.publish_input import Input

    source = Input(path, wish.from_line or 1)
    total = None
    if source.can_be_read_twice:
        with _status(f"checking {source.name}"):
            total = _check(wish, publisher, source)
    return asyncio.run(_send(wish, publisher, source, total))


def _check(wish: _Wish, publisher: "Publisher", source: "Input") -> int:
    """Return how many events a file has; raise `UsageError` when a line is broken and may not be skipped."""
    from worker.errors import UsageError
    from worker.publisher import PublishError
    from worker.publisher.lines import LineError

    good, broken, first = 0, 0, ""
    for line in source.lines():
        try:
            publisher.check(wish.read(line))
        except (LineError, PublishError) as error:
            broken += 1
            first = first or _about(line.number, error)
        else:
            good += 1
    if broken and not wish.skips_bad:
        count = f"{_counted(broken, 'line')} are broken, the first: " if broken > 1 else ""
        raise UsageError(
            f"{source.name}: {count}{first}; nothing was published: correct the file, "
            f"or leave broken lines out with --skip-bad"
        )
    if not good and wish.from_line is not None:
        raise UsageError(f"{source.name} has no event from line {wish.from_line} on: correct --from-line")
    return good


async def _send(wish: _Wish, publisher: "Publisher", source: "Input", total: int | None) -> int:
    from worker.cli.publish_sending import Pace, Sending

    pace = None if wish.rate is None else Pace(wish.rate)
    sending = Sending(publisher, wish.read, pace=pace, skips_bad=wish.skips_bad, next_line=wish.from_line or 1)
    grace_seconds = None
    with _stopped_by_signals(sending):
        await publisher.open()
        started = time.monotonic()
        try:
            with _progress(sending, total):
                await sending.run(source.stream())
        except asyncio.CancelledError:  # a second Ctrl-C: the account holds what is known
            grace_seconds = HASTE_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await publisher.close()
    _summarize(wish, publisher.topic, sending, time.monotonic() - started)
    if sending.error is not None:
        raise _told(sending.error, f"{source.name}: {_about(sending.next_line, sending.error)}; {_go_on(sending)}")
    if sending.is_complete:
        return 0
    typer.echo(f"longshore: interrupted: {_go_on(sending)}", err=True)
    return INTERRUPTED


@contextmanager
def _stopped_by_signals(sending: "Sending") -> Iterator[None]:
    """The first Ctrl-C lets what was read go out; a second one gives up what is waited for."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        if sending.is_stopping and task is not None:
            task.cancel()
        sending.stop()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _status(text: str) -> AbstractContextManager[object]:
    """Say on a terminal what takes a while."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


@contextmanager
def _progress(sending: "Sending", total: int | None) -> Iterator[None]:
    """Show a bar on a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress("publishing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:  # fmt: skip
        shown = bar.add_task("publishing", total=total)
        sending.on_account = lambda: bar.update(shown, completed=sending.published)
        yield


def _summarize(wish: _Wish, topic: str, sending: "Sending", seconds: float) -> None:
    """Print one line about all, and on standard error one about each line that was left out."""
    for number, error in sending.skipped[:SHOWN_SKIPS]:
        typer.echo(f"skipped: {_about(number, error)}", err=True)
    if len(sending.skipped) > SHOWN_SKIPS:
        typer.echo(f"skipped: {len(sending.skipped) - SHOWN_SKIPS} more lines", err=True)
    rate = sending.published / max(seconds, 1e-6)
    if wish.as_json:
        said = {
            "topic": topic,
            "published": sending.published,
            "failed": sending.failed,
            "skipped": len(sending.skipped),
            "seconds": round(seconds, 3),
            "events_per_second": round(rate, 1),
            "next_line": None if sending.is_complete else sending.next_line,
        }
        typer.echo(json.dumps(said))
        return
    more = f"; {_counted(sending.failed, 'event')} failed" if sending.failed else ""
    more += f"; {_counted(len(sending.skipped), 'broken line')} skipped" if sending.skipped else ""
    typer.echo(f"published {_counted(sending.published, 'event')} to {topic} in {seconds:.1f} s ({rate:,.0f}/s){more}")


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _about(number: int, error: Exception) -> str:
    from worker.publisher.lines import LineError

    return f"line {number} {error}" if isinstance(error, LineError) else f"line {number}: {error}"


def _go_on(sending: "Sending") -> str:
    number = sending.next_line
    if not sending.published:
        return f"no line was surely published; start again with --from-line {number}"
    later = f", and {sending.published_later} of those after it" if sending.published_later else ""
    return f"the lines before {number} were surely published{later}; go on with --from-line {number}"


def _told(error: Exception, sentence: str) -> Exception:
    """Return the error that ends the command: with status 2 for a user's mistake, with 1 for what may pass."""
    from worker.errors import LongshoreError, UsageError

    fault = getattr(error, "fault", None)
    return LongshoreError(sentence) if fault is not None and fault.may_pass else UsageError(sentence)


class _Stderr:
    """Standard error as it is now: while a progress bar is shown, above it."""

    def write(self, data: bytes) -> int:
        sys.stderr.write(data.decode())
        return len(data)

    def isatty(self) -> bool:
        return False
