"""What every `Source` does on a FIFO queue."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from worker.errors import Fault, SourceError
from worker.message import Received
from worker.source import Copy, Depth, ReceiveRequest, Source

if TYPE_CHECKING:
    from conformance.conftest import Kit


def _request(limit: int = 10, *, wait: int = 0, visibility: int = 30, attempt_id: str | None = None) -> ReceiveRequest:
    return ReceiveRequest(limit, wait, visibility, attempt_id)


async def _make(kit: "Kit", bodies: str, *, max_receive_count: int = 10) -> Source:
    """Make a FIFO queue with the messages `a1 a2 b1`: the letter is the group."""
    source = await kit.make("orders.fifo", max_receive_count=max_receive_count)
    for body in bodies.split():
        await kit.send(source, body, group_id=body[0], deduplication_id=f"id-{body}")
    return source


async def _bodies(source: Source, limit: int = 10, *, wait: int = 0) -> list[str]:
    return [message.body for message in await source.receive(_request(limit, wait=wait))]


def _by_group(messages: list[Received]) -> dict[str | None, list[str]]:
    groups: dict[str | None, list[str]] = {}
    for message in messages:
        groups.setdefault(message.group_id, []).append(message.body)
    return groups


async def test_a_group_comes_in_order(kit: "Kit") -> None:
    """One receive may return several messages of a group, in the order they were sent, with rising numbers (F1)."""
    source = await _make(kit, "a1 b1 a2 b2 a3")
    messages = await source.receive(_request())
    assert _by_group(messages) == {"a": ["a1", "a2", "a3"], "b": ["b1", "b2"]}
    by_body = {message.body: message for message in messages}
    numbers = [by_body[body].sequence_number for body in ("a1", "a2", "a3")]
    assert all(numbers)
    assert numbers == sorted(numbers, key=lambda number: int(number or 0))
    assert by_body["a1"].deduplication_id == "id-a1"


async def test_a_group_is_blocked_while_a_message_is_in_flight(kit: "Kit") -> None:
    """Other groups flow (F1)."""
    source = await _make(kit, "a1 a2")
    assert await _bodies(source, 1) == ["a1"]
    await kit.send(source, "b1", group_id="b")
    assert await _bodies(source) == ["b1"]
    assert await _bodies(source) == []


async def test_a_delete_lets_the_group_go_on(kit: "Kit") -> None:
    """A parked poll is woken for the next message of the group."""
    source = await _make(kit, "a1 a2")
    (head,) = await source.receive(_request(1))
    poll = asyncio.create_task(_bodies(source, wait=10))
    await asyncio.sleep(0.3)
    assert await source.delete([head.receipt]) == [None]
    assert await poll == ["a2"]


async def test_a_released_head_comes_back_before_its_successors(kit: "Kit") -> None:
    """A failure does not change the order (F2)."""
    source = await _make(kit, "a1 a2 a3")
    (head,) = await source.receive(_request(1))
    await source.extend([(head.receipt, 0)])
    assert await _bodies(source) == ["a1", "a2", "a3"]


async def test_a_lapsed_head_comes_back_before_its_successors(kit: "Kit") -> None:
    source = await _make(kit, "a1 a2")
    await source.receive(_request(1, visibility=1))
    await asyncio.sleep(1.5)
    assert await _bodies(source, wait=5) == ["a1", "a2"]


async def test_a_hidden_head_holds_back_what_was_released_behind_it(kit: "Kit") -> None:
    """A lane is given back head first with its delay, the others with 0: nobody overtakes (F2)."""
    source = await _make(kit, "a1 a2 a3")
    first, *others = await source.receive(_request())
    await source.extend([(first.receipt, 2), *((message.receipt, 0) for message in others)])
    if kit.differs.overtakes_a_hidden_head:
        assert await _bodies(source) == ["a2", "a3"]
        return
    assert await _bodies(source) == []
    await asyncio.sleep(2.5)
    assert await _bodies(source) == ["a1", "a2", "a3"]


async def test_a_deduplication_id_adds_a_message_once(kit: "Kit") -> None:
    """Within five minutes a second message with the same id is taken and dropped."""
    source = await _make(kit, "a1")
    (message,) = await source.receive(_request())
    await source.delete([message.receipt])
    await kit.send(source, "other", group_id="a", deduplication_id="id-a1")
    assert await source.depth() == Depth(0, 0, 0, 0)
    await kit.send(source, "a2", group_id="a", deduplication_id="id-a2")
    assert await _bodies(source) == ["a2"]


async def test_a_poison_head_moves_to_the_dead_letter_queue_and_its_group_goes_on(kit: "Kit") -> None:
    """SQS's own redrive on FIFO."""
    source = await _make(kit, "a1 a2", max_receive_count=1)
    (head,) = await source.receive(_request(1))
    await source.extend([(head.receipt, 0)])
    assert await _bodies(source) == ["a2"]
    (dead,) = await kit.dead_letters(source)
    assert (dead.body, dead.group_id) == ("a1", "a")


async def test_a_lapsed_message_cannot_be_deleted(kit: "Kit") -> None:
    """On FIFO a receipt handle ends with its visibility timeout (L3)."""
    source = await _make(kit, "a1")
    (message,) = await source.receive(_request(visibility=1))
    await asyncio.sleep(1.5)
    (result,) = await source.delete([message.receipt])
    if kit.differs.deletes_fifo_with_expired_handle:
        assert result is None
        assert (await source.depth()).visible == 0
    else:
        assert result is not None
        assert result.fault is Fault.LOST
        depth = await source.depth()
        assert depth.visible + depth.in_flight == 1  # SQS need not have noticed yet


async def test_a_copy_keeps_its_group(kit: "Kit") -> None:
    """The original's id is the deduplication id, so a copy whose answer was lost is sent once (S5)."""
    source = await _make(kit, "")
    copy = Copy("body", group_id="a", deduplication_id="the-original")
    await source.dead_letter(copy)
    await source.dead_letter(copy)
    (dead,) = await kit.dead_letters(source)
    assert (dead.body, dead.group_id, dead.deduplication_id) == ("body", "a", "the-original")


@pytest.mark.parametrize(
    "copy",
    [
        Copy("body"),
        Copy("body", group_id="a"),
        Copy("body", group_id="", deduplication_id="id"),
    ],
    ids=["bare", "group", "empty group"],
)
async def test_a_copy_without_group_and_deduplication_id_is_refused(kit: "Kit", copy: Copy) -> None:
    source = await _make(kit, "")
    with pytest.raises(SourceError) as refusal:
        await source.dead_letter(copy)
    assert refusal.value.fault is Fault.INVALID


async def test_a_group_id_over_128_characters_is_refused(kit: "Kit") -> None:
    source = await _make(kit, "")
    copy = Copy("body", group_id="a" * 129, deduplication_id="id")
    if kit.differs.takes_long_group_ids:
        await source.dead_letter(copy)
    else:
        with pytest.raises(SourceError, match="MessageGroupId"):
            await source.dead_letter(copy)


async def test_an_attempt_id_gets_the_same_messages_again(kit: "Kit") -> None:
    """A receive whose answer was lost is repeated without waiting for the visibility timeout (R8)."""
    source = await _make(kit, "a1 a2")
    first = await source.receive(_request(attempt_id="attempt-1"))
    again = await source.receive(_request(attempt_id="attempt-1"))
    assert await source.receive(_request(attempt_id="attempt-2")) == []
    if kit.differs.forgets_attempt_ids:
        assert again == []
    else:
        assert again == first


async def test_the_queue_says_that_it_is_fifo(kit: "Kit") -> None:
    source = await _make(kit, "")
    facts = await source.describe()
    assert (facts.is_fifo, facts.dead_letter_found) == (True, True)
    assert source.queue.endswith(".fifo")
