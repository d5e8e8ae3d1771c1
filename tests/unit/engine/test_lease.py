"""One lease: its deadline, its beats' times, its cap, and what a handler may ask of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.loop_time import LoopTime, now

from worker.engine.lease import HeldLease, LeaseTerms
from worker.errors import EntryError, Fault, SourceError
from worker.message import Message, Received
from worker.testing import MemorySource
from worker.testing.fleet import Fleet

HALF_A_DAY = 43_200


class Changes:
    """Takes visibility changes, each after some seconds, and answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []
        self.seconds = 0.0
        self.error: EntryError | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    async def __call__(self, receipt: str, seconds: int) -> EntryError | None:
        await asyncio.sleep(self.seconds)
        self.taken.append((receipt, seconds))
        self.meanwhile()
        return self.error


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def changes() -> Changes:
    return Changes()


def received(receipt: str = "first") -> Received:
    return Received(id="1", receipt=receipt, body="order")


def make_lease(changes: Changes, *, timeout_seconds: int = 30, max_seconds: float = 3600) -> HeldLease:
    return HeldLease(LeaseTerms(timeout_seconds, max_seconds, LoopTime(), changes), received(), since=0)


@pytest.mark.parametrize(("timeout_seconds", "deadline"), [(2, 1.9), (10, 9.5), (20, 19), (30, 29), (43_140, 43_139)])
async def test_a_lease_ends_a_margin_before_the_timeout(
    changes: Changes, timeout_seconds: int, deadline: float
) -> None:
    """A twentieth of the timeout, at most a second, is left to what happened before the answer was read (L1)."""
    lease = make_lease(changes, timeout_seconds=timeout_seconds, max_seconds=HALF_A_DAY)
    assert lease.deadline == pytest.approx(deadline)
    assert lease.remaining_seconds == pytest.approx(deadline)


async def test_the_deadline_alone_ends_a_lease(changes: Changes) -> None:
    """No timer, no answer: the clock says so (L1)."""
    lease = make_lease(changes)
    seen: list[tuple[bool, bool]] = []
    for _ in range(30):
        seen.append((lease.is_lost, lease.remaining_seconds == 0))
        await asyncio.sleep(1)
    assert seen == [(False, False)] * 29 + [(True, True)]


async def test_the_first_beat_is_due_at_a_third(changes: Changes) -> None:
    """So a delay of up to two thirds that nobody has seen is survived (L1)."""
    assert make_lease(changes, timeout_seconds=30).beat_at == pytest.approx(9)
    assert make_lease(changes, timeout_seconds=300).beat_at == pytest.approx(99)


async def test_an_extension_counts_from_its_sending(changes: Changes) -> None:
    """However late its answer is (L1)."""
    lease = make_lease(changes)
    await asyncio.sleep(15)
    lease.push_back(sent=10, seconds=30)
    assert lease.deadline == pytest.approx(39)


async def test_a_deadline_never_comes_nearer(changes: Changes) -> None:
    """Answers may overtake one another (L1, L7)."""
    lease = make_lease(changes)
    lease.push_back(sent=10, seconds=600)
    lease.push_back(sent=20, seconds=30)
    assert lease.deadline == pytest.approx(609)


async def test_a_newer_receive_starts_the_lease_anew(changes: Changes) -> None:
    """Its handle, its deadline and its cap replace the old ones, also when they are nearer (R9, L5)."""
    lease = make_lease(changes, max_seconds=100)
    lease.push_back(sent=10, seconds=90)
    lease.renew(received("second"), since=20)
    assert lease.receipt == "second"
    assert lease.deadline == pytest.approx(49)
    assert lease.cap_at == 120


async def test_an_extension_hides_the_message_from_now_on(changes: Changes) -> None:
    """`message.lease.extend(seconds)` is a call of its own, in whole seconds (L7)."""
    lease = make_lease(changes)
    await asyncio.sleep(10)
    await lease.extend(99.5)
    assert changes.taken == [("first", 100)]
    assert lease.deadline == pytest.approx(109)


async def test_a_slow_extension_counts_from_its_sending(changes: Changes) -> None:
    """SQS may have made it at the start of the call (L1, L7)."""
    lease = make_lease(changes)
    changes.seconds = 8
    await lease.extend(100)
    assert now() == 8
    assert lease.deadline == pytest.approx(99)


async def test_an_extension_that_is_covered_already_costs_no_call(changes: Changes) -> None:
    """At least so many seconds are promised, not exactly so many (L7)."""
    lease = make_lease(changes)
    await lease.extend(20)
    assert changes.taken == []
    assert lease.deadline == pytest.approx(29)


async def test_an_extension_ends_at_the_cap(changes: Changes) -> None:
    """A handler cannot talk itself past `max_lease_seconds` (L5, L7)."""
    lease = make_lease(changes, max_seconds=600)
    await lease.extend(7200)
    assert changes.taken == [("first", 600)]


async def test_the_cap_is_twelve_hours_less_a_minute_at_most(changes: Changes) -> None:
    """SQS would not grant more, and a minute is left to settle (L5)."""
    assert make_lease(changes, max_seconds=10 * HALF_A_DAY).cap_at == HALF_A_DAY - 60


async def test_what_sqs_grants_is_counted_from_the_receive(changes: Changes) -> None:
    """A retry delay that is longer than what is left of the twelve hours would be refused (L5)."""
    lease = make_lease(changes)
    assert HALF_A_DAY - 60 < lease.longest_extension_seconds() < HALF_A_DAY
    await asyncio.sleep(3600)
    assert HALF_A_DAY - 3660 < lease.longest_extension_seconds() < HALF_A_DAY - 3600


async def test_a_refused_extension_is_the_handlers_to_know(changes: Changes) -> None:
    """It raises what SQS said, and the lease is what it was (L7)."""
    lease = make_lease(changes)
    changes.error = EntryError(Fault.THROTTLED, "RequestThrottled")
    with pytest.raises(SourceError, match="RequestThrottled"):
        await lease.extend(100)
    assert lease.deadline == pytest.approx(29)


async def test_a_yes_after_the_deadline_is_no_extension(changes: Changes) -> None:
    """Someone else may hold the message by then, so the handler is not told that all is well (L3, L7)."""
    lease = make_lease(changes)
    changes.seconds = 30
    with pytest.raises(SourceError, match="no longer held"):
        await lease.extend(100)
    assert lease.is_lost


async def surrender(lease: HeldLease) -> None:
    lease.is_surrendered = True


async def let_go(lease: HeldLease) -> None:
    lease.is_settled = True


@pytest.mark.parametrize("end", [surrender, let_go, HeldLease.rest])
async def test_what_is_no_longer_held_is_not_extended(
    changes: Changes, end: Callable[[HeldLease], Awaitable[None]]
) -> None:
    """Lost, settled or being given back: a task that a handler left behind must not hide it again (L3, L4)."""
    lease = make_lease(changes)
    await end(lease)
    with pytest.raises(SourceError, match="no longer held"):
        await lease.extend(100)
    assert changes.taken == []


async def test_an_extension_waits_for_the_beat_on_the_wire(changes: Changes) -> None:
    """A beat that arrived after it would shorten it, whatever the clock here says (L7)."""
    lease = make_lease(changes)
    lease.beat = asyncio.get_running_loop().create_future()
    extension = asyncio.create_task(lease.extend(100))
    await asyncio.sleep(20)
    assert changes.taken == []
    lease.end_beat()
    await extension
    assert changes.taken == [("first", 100)]


async def test_extensions_wait_for_one_another(changes: Changes) -> None:
    """The shorter of two that are asked for at once is covered by the longer one (L7)."""
    lease = make_lease(changes)
    changes.seconds = 1
    await asyncio.gather(lease.extend(600), lease.extend(100), lease.extend(300))
    assert changes.taken == [("first", 600)]


async def test_an_extension_of_a_replaced_handle_is_made_again(changes: Changes) -> None:
    """The message was received again meanwhile: the newest handle is the one to extend (R9, L7)."""
    lease = make_lease(changes)

    def replace() -> None:
        changes.meanwhile = lambda: None
        lease.renew(received("second"), since=0)

    changes.meanwhile = replace
    await lease.extend(100)
    assert changes.taken == [("first", 100), ("second", 100)]


@pytest.mark.parametrize(("timeout_seconds", "patience_seconds"), [(6, 1), (12, 2), (30, 5), (300, 5)])
async def test_a_visibility_change_has_little_patience_with_a_beat(
    changes: Changes, timeout_seconds: int, patience_seconds: float
) -> None:
    """It waits for the beat of its own message, at most five seconds or a sixth of the timeout (L4)."""
    lease = make_lease(changes, timeout_seconds=timeout_seconds)
    lease.beat = asyncio.get_running_loop().create_future()
    await lease.rest()
    assert now() == pytest.approx(patience_seconds)
    assert not lease.wants_beats


# At a queue


async def test_a_handler_extends_its_own_lease() -> None:
    """The message stays hidden for what the handler asked, and beats do not shorten it (L7)."""
    source = MemorySource(visibility_timeout_seconds=30)
    left: list[float] = []

    async def handler(message: Message[str]) -> None:
        await message.lease.extend(600)
        extended = source.calls["extend"]
        await asyncio.sleep(500)
        left.append(message.lease.remaining_seconds)
        left.append(source.calls["extend"] - extended)

    source.send("order")
    await Fleet(source).run(handler)
    assert left == [pytest.approx(99), 0]


async def test_a_slow_beat_does_not_shorten_what_a_handler_asked_for() -> None:
    """The beat of 9 s arrives at 17 s; were the extension not after it, the message would be back at 47 s (L7)."""
    source = MemorySource(visibility_timeout_seconds=30)
    source.faults.slow("extend", 8, times=1)
    runs: list[int] = []

    async def handler(message: Message[str]) -> None:
        runs.append(message.receive_count)
        await asyncio.sleep(10)
        await message.lease.extend(600)
        source.faults.hang("extend", times=None)
        await asyncio.sleep(500)
        source.faults.clear()

    message_id = source.send("order")
    await Fleet(source).run(handler)
    assert runs == [1]
    assert len(source.receives[message_id]) == 1
