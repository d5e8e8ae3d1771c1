"""`Batch`, and the handlers that take one: what they look like, and what is refused where it stands."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from worker import Ack, Batch, ConfigError, DeadLetter, Message, Outcome, Retry, Router
from worker.testing import run, run_batch


class Viewed(BaseModel):
    page: str


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"size": 0}, "size=0; allowed is a whole number from 1 to 10000"),
        ({"size": 10_001}, "size=10001"),
        ({"size": True}, "size=True"),
        ({"size": "200"}, "size='200'"),
        ({"size": 5, "window_seconds": -1}, "window_seconds=-1; allowed are 0 to 3600 seconds"),
        ({"size": 5, "window_seconds": float("nan")}, "window_seconds=nan"),
        ({"size": 5, "window_seconds": None}, "window_seconds=None"),
        ({"size": 5, "on_error": "ignore"}, "on_error='ignore'; allowed are 'fail' and 'split'"),
    ],
    ids=str,
)
def test_a_batch_out_of_bounds_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Batch(**values)


def test_a_handler_of_batches_may_take_a_sequence_or_a_list() -> None:
    router = Router()

    @router.on("a", batch=Batch(5))
    async def sequence(messages: Sequence[Message[Viewed]]) -> None: ...

    @router.on("b", batch=Batch(500))
    def plain(messages: "list[Message[Viewed]]") -> Mapping[str, Outcome] | None: ...

    router.check()
    assert [route.handler.payload.type for route in router.routes] == [Viewed, Viewed]
    assert router.largest_batch == 500


def test_an_annotation_that_is_no_sequence_of_messages_is_refused() -> None:
    async def one(message: Message[Viewed]) -> None: ...
    async def events(messages: Sequence[Viewed]) -> None: ...
    async def mapping(messages: dict[str, Message[Viewed]]) -> None: ...

    wrong: list[Any] = [one, events, mapping]
    for handler in wrong:
        with pytest.raises(ConfigError, match=rf"{handler.__name__}` .*allowed with `batch` is .*Sequence\[Message"):
            Router().on("*", batch=Batch(5))(handler)


def test_a_sequence_without_a_batch_is_told_what_it_lacks() -> None:
    async def handle(messages: Sequence[Message[Viewed]]) -> None: ...

    with pytest.raises(ConfigError, match=r"needs `batch=Batch\(size=200\)` in its decorator"):
        Router().on("*")(handle)


def test_a_batch_that_is_none_is_refused() -> None:
    async def handle(messages: Sequence[Message[Viewed]]) -> None: ...

    with pytest.raises(ConfigError, match=r"has batch=200; allowed is `Batch\(size=200"):
        Router().on("*", batch=200)(handle)  # type: ignore[arg-type]  # the mistake


class TestKit:
    """`run` gives a handler a batch of one; `run_batch` gives it all, and returns an outcome for each."""

    router = Router()

    @staticmethod
    @router.on("page.viewed", batch=Batch(100))
    async def count(messages: Sequence[Message[Viewed]]) -> Mapping[str, Outcome]:
        pages = [message.event.page for message in messages]
        if "down" in pages:
            raise ConnectionRefusedError
        return {message.id: Retry(after=5) for message in messages if message.event.page == "slow"}

    async def test_one_event_is_a_batch_of_one(self) -> None:
        assert await run(self.router, Viewed(page="home")) == Ack()
        assert await run(self.router, Viewed(page="slow")) == Retry(after=5)

    async def test_several_events_get_an_outcome_each(self) -> None:
        events = [Viewed(page="home"), Viewed(page="slow"), Viewed(page="cart")]
        assert await run_batch(self.router, events) == [Ack(), Retry(after=5), Ack()]

    async def test_a_payload_that_does_not_fit_never_joins(self) -> None:
        outcomes = await run_batch(self.router, [{"page": "home"}, {"page": 7}], event_type="page.viewed")
        assert outcomes[0] == Ack()
        assert outcomes[1] == DeadLetter("the payload does not fit Viewed (page: string_type)")

    async def test_what_the_handler_raises_is_raised(self) -> None:
        with pytest.raises(ConnectionRefusedError):
            await run_batch(self.router, [Viewed(page="home"), Viewed(page="down")])

    async def test_events_that_no_one_batch_takes_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="no handler takes"):
            await run_batch(self.router, ["x"], event_type="page.left")
        single = Router()

        @single.on("*")
        async def handle(_: Message[Any]) -> None: ...

        with pytest.raises(ConfigError, match="asks for no batches"):
            await run_batch(single, ["x"])
