"""The survey: what SQS says of a queue is read, compared, and read again."""

import asyncio
import itertools
from typing import Any

import pytest
import structlog

from worker.engine.survey import DEPTH_SECONDS, FACTS_SECONDS, differences
from worker.errors import Fault, SourceError
from worker.message import Message
from worker.settings import QueueSettings
from worker.source import Depth, QueueFacts
from worker.testing.fleet import Fleet
from worker.testing.memory import MemorySource

ARN = "arn:aws:sqs:us-east-1:000000000000:orders-dlq"


async def handler(_: Message[str]) -> None:
    """Do the work."""


def settings_of(**changes: Any) -> QueueSettings:
    return QueueSettings.model_validate({"name": "orders", "handlers": "tests:router", **changes})


def facts_of(**changes: Any) -> QueueFacts:
    facts: dict[str, Any] = {"max_receive_count": 10, "redrive_target": "orders-dlq", "dead_letter_found": True}
    return QueueFacts(
        **({"is_fifo": False, "visibility_timeout_seconds": 30, "retention_seconds": 3600} | facts | changes)
    )


# What differs (S4, S5)


def test_a_queue_as_configured_has_no_differences() -> None:
    """A queue that is what its settings say is not warned about (S4)."""
    assert differences(facts_of(), settings_of()) == {}


@pytest.mark.parametrize("dead_letter", [ARN, "https://sqs.us-east-1.amazonaws.com/000000000000/orders-dlq"])
def test_a_dead_letter_queue_by_arn_or_url_is_the_same_queue(dead_letter: str) -> None:
    """However the dead-letter queue is written, its bare name is compared (S5)."""
    assert differences(facts_of(), settings_of(dead_letter={"queue": dead_letter})) == {}


@pytest.mark.parametrize(
    ("facts", "part", "words"),
    [
        ({"max_receive_count": None, "redrive_target": None}, "redrive", "has no RedrivePolicy; orders-dlq"),
        ({"max_receive_count": 5}, "redrive", "maxReceiveCount is 5; 10 is configured"),
        ({"max_receive_count": 2}, "redrive", "before their 3 attempts are used"),
        ({"redrive_target": "other-dlq"}, "target", "points to other-dlq; dead letters go to orders-dlq"),
    ],
)
def test_a_redrive_policy_that_differs_is_warned_about(facts: dict[str, Any], part: str, words: str) -> None:
    """The queue's real RedrivePolicy is compared with the settings, and the difference is named (S4, S5)."""
    assert words in differences(facts_of(**facts), settings_of())[part]


def test_a_redrive_policy_nobody_configured_is_warned_about() -> None:
    """With `dead_letter: none` nothing may be moved: a RedrivePolicy on the queue does it all the same (S4)."""
    none = settings_of(dead_letter="none")
    assert "moves messages to orders-dlq after 10 receives" in differences(facts_of(), none)["redrive"]
    assert differences(facts_of(max_receive_count=None, redrive_target=None), none) == {}


# Reading it


async def test_facts_are_read_at_start_and_replace_the_rules() -> None:
    """What SQS says of the queue counts from the start, whatever is configured (S4, S7)."""
    source = MemorySource(max_receive_count=4, retention_seconds=7200)
    async with Fleet(source, retention_seconds=86_400).running(handler) as consumer:
        await asyncio.sleep(1)
        assert consumer.context.rules.facts == await source.describe()
        assert consumer.context.vitals.warnings == {"redrive": "the queue's maxReceiveCount is 4; 10 is configured"}
        assert consumer.context.vitals.is_reached


async def test_depth_is_read_every_thirty_seconds_and_facts_every_five_minutes() -> None:
    """An hour costs about 120 depth readings, spread by jitter, and twelve of the attributes (M1)."""
    read_at: list[float] = []

    class WatchedSource(MemorySource):
        async def depth(self) -> Depth:
            read_at.append(asyncio.get_running_loop().time())
            return await super().depth()

    source = WatchedSource()
    await Fleet(source).run(handler, seconds=3600)
    assert len(read_at) == pytest.approx(3600 / DEPTH_SECONDS, abs=5)
    assert 10 <= source.calls["describe"] <= 3600 / FACTS_SECONDS + 1
    gaps = {round(later - earlier, 3) for earlier, later in itertools.pairwise(read_at)}
    assert len(gaps) > 50
    assert DEPTH_SECONDS * 0.89 <= min(gaps) <= max(gaps) <= DEPTH_SECONDS * 1.11


async def test_a_difference_is_logged_once_and_forgotten_when_mended() -> None:
    """A warning stays in `/readyz` while it holds, its log line comes once, and a mended queue loses it (S4)."""
    source = MemorySource(max_receive_count=4)
    with structlog.testing.capture_logs() as lines:
        async with Fleet(source).running(handler) as consumer:
            await asyncio.sleep(3600)
            assert list(consumer.context.vitals.warnings) == ["redrive"]
            assert source.store.redrive is not None
            source.store.redrive = (source.store.redrive[0], 10)
            await asyncio.sleep(FACTS_SECONDS + 2 * DEPTH_SECONDS)
            assert consumer.context.vitals.warnings == {}
    assert len([line for line in lines if line["event"] == "the queue differs from its settings"]) == 1


async def test_a_missing_dead_letter_queue_is_named_and_heals() -> None:
    """Without its dead-letter queue the queue is not ready, by name, and ready within a minute of its creation (X1)."""
    source = MemorySource()
    source.dead_letter_queue.exists = False
    async with Fleet(source).running(handler) as consumer:
        problems = consumer.context.vitals.problems
        await asyncio.sleep(100)
        assert problems == {"dead_letter_queue": "the dead-letter queue orders-dlq is not found; create it"}
        source.dead_letter_queue.exists = True
        await asyncio.sleep(60)
        assert problems == {}


async def test_refused_copies_stay_named_whatever_the_survey_finds() -> None:
    """That the dead-letter queue exists does not prove that copies are taken: only a copy does (S5)."""
    source = MemorySource()
    async with Fleet(source).running(handler) as consumer:
        await asyncio.sleep(10)
        consumer.context.vitals.trouble("dead_letter", "the dead-letter queue refuses copies (AccessDenied)")
        await asyncio.sleep(2 * FACTS_SECONDS)
        assert list(consumer.context.vitals.problems) == ["dead_letter"]


@pytest.mark.parametrize("operation", ["describe", "depth"])
async def test_denied_attributes_are_named_and_heal(operation: str) -> None:
    """A queue whose attributes may not be read is not ready and says which permission it needs; messages flow (X1)."""
    source = MemorySource()
    rule = source.faults.fail(operation, SourceError(Fault.DENIED, "AccessDenied"), times=None)  # type: ignore[arg-type]
    source.send("work")
    async with Fleet(source).running(handler) as consumer:
        await asyncio.sleep(120)
        assert source.is_empty
        assert "sqs:GetQueueAttributes" in consumer.context.vitals.problems["facts"]
        assert rule.hits < 30
        rule.stop()
        await asyncio.sleep(DEPTH_SECONDS + 2)
        assert consumer.context.vitals.problems == {}


async def test_a_blip_is_no_trouble() -> None:
    """Attributes that cannot be read for a while are read later, and say nothing of readiness (D3)."""
    source = MemorySource()
    source.faults.fail("describe", times=20)
    async with Fleet(source).running(handler) as consumer:
        for _ in range(500):
            await asyncio.sleep(1)
            assert consumer.context.vitals.problems == {}
        assert consumer.context.rules.facts is not None


async def test_what_fails_for_long_is_logged_once_a_minute() -> None:
    """Ten minutes of refusals are a line a minute, and one when it works again (R6)."""
    source = MemorySource()
    rule = source.faults.fail("describe", SourceError(Fault.DENIED, "AccessDenied"), times=None)
    with structlog.testing.capture_logs() as lines:
        async with Fleet(source).running(handler):
            await asyncio.sleep(600)
            rule.stop()
            await asyncio.sleep(60)
    said = [line["event"] for line in lines if line["event"].startswith("reading attributes ")]
    assert 5 <= said.count("reading attributes fails") <= 11
    assert said[-1] == "reading attributes works again"
