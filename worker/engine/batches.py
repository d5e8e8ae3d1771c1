"""The batches of one handler: members join one by one, are handled in one call, and each gets its own outcome."""

import asyncio
from collections.abc import Sequence
from typing import Any

from worker.engine.calls import Call, Calls
from worker.engine.delivery import Company, Delivery
from worker.engine.happened import RAN_OUT_OF_TIME, classify, interrupted, sound
from worker.engine.room import Room
from worker.message import Message
from worker.outcome import Ack, Fate, Outcome, Release, Retry
from worker.router import Route

__all__ = ["Batches"]

LAST_CALL_SECONDS = 0.05
"""How long a batch waits for members that are on their way through the middleware, when no others can come."""


class _Ticket:
    """One message's place in a batch."""

    __slots__ = ("answer", "circle", "delivery", "is_answered", "is_void", "message", "run")

    def __init__(self, delivery: Delivery, message: Message[Any], circle: "_Circle | None") -> None:
        self.delivery = delivery
        self.message = message
        self.circle = circle
        self.run: _Run | None = None
        """The call that handles it, once it has begun."""
        self.answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.is_answered = False
        """Its call had ended when it was interrupted: what is done stays done."""
        self.is_void = False
        """Its batch ended without saying anything of it: it is run again by whoever sent it here."""


class _Circle:
    """Messages of one FIFO group that are handled together, in order, up to the first that fails before.

    Who never joins is not waited for.
    """

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self._order = [delivery.received.id for delivery in deliveries]
        self._awaited = set(self._order)
        self._joined: list[_Ticket] = []
        self._ends_before = len(self._order)
        """The place of the first that may not be overtaken."""
        self._ended: list[asyncio.Future[bool]] = [asyncio.get_running_loop().create_future() for _ in self._order]
        """Whether each is done, once that is known."""

    def without(self, message_id: str) -> list[_Ticket]:
        """Wait for one less; return everybody who joined, in order, once nobody is waited for."""
        self._awaited.discard(message_id)
        if self._awaited or not self._joined:
            return []
        tickets, self._joined = self._joined, []
        return sorted(tickets, key=self._place)

    def join(self, ticket: _Ticket) -> list[_Ticket]:
        """Add a ticket; return everybody once nobody is waited for."""
        self._joined.append(ticket)
        return self.without(ticket.delivery.received.id)

    def fail(self, message_id: str) -> None:
        """Let nobody who comes behind it be handled."""
        self._ends_before = min(self._ends_before, self._order.index(message_id))

    def admits(self, ticket: _Ticket) -> bool:
        """Whether nobody before it has failed."""
        return self._place(ticket) < self._ends_before

    async def counted(self, message_id: str, fate: Fate | None) -> Fate | None:
        """Return what counts of a fate: nothing behind the first that is not done, for that is handled again, after it."""
        counts = False
        try:
            earlier = self._ended[: self._order.index(message_id)]
            counts = all([one.result() if one.done() else await asyncio.shield(one) for one in earlier])
        finally:
            self.ended(message_id, is_done=counts and isinstance(fate, Ack))
        return fate if counts else None

    def ended(self, message_id: str, *, is_done: bool) -> None:
        """Tell those behind it what became of a message."""
        self._ended[self._order.index(message_id)].set_result(is_done)

    def _place(self, ticket: _Ticket) -> int:
        return self._order.index(ticket.delivery.received.id)


class _Run:
    """One call for several messages, and who left while it ran."""

    def __init__(self, tickets: list[_Ticket], call: Call, task: "asyncio.Task[Any]") -> None:
        self.tickets = tickets
        self.left: set[_Ticket] = set()
        self.is_out_of_time = False
        self._call = call
        self._task = task
        for ticket in tickets:
            ticket.run = self

    def time_is_up(self) -> None:
        """The handler's time limit has passed."""
        if not self._call.has_ended:
            self.is_out_of_time = True
            self._cancel()

    async def leave(self, ticket: _Ticket) -> None:
        """End the call, because it may not go on with this message; return when it has really ended."""
        self.left.add(ticket)
        self._cancel()
        while not self._call.has_ended:
            try:
                await asyncio.wait({self._task})
            except asyncio.CancelledError:  # for a stronger cause; the call has to end all the same
                continue

    def _cancel(self) -> None:
        if not self._call.has_ended and not self._task.cancelling():
            self._task.cancel()
            self._call.watch(self._task)


class Batches:
    """Collects the messages of one handler and calls it with many at a time.

    1. A member goes through the middleware by itself; in the middle it joins a batch and waits for its own outcome.
    2. A batch begins when it is large enough, when its first member has waited for the window, when the queue has no room
       for more, or when the worker drains. It then waits for its turn, and may grow meanwhile.
    3. A member whose lease is lost, or that is cut short, ends the call; the others are handled again at once.
    4. With `on_error="split"`, a batch that fails is handled again member by member.
    """

    def __init__(self, route: Route, calls: Calls, room: Room) -> None:
        assert route.batch is not None  # noqa: S101  # whoever made us has asked
        self._route = route
        self._batch = route.batch
        self._calls = calls
        self._room = room
        self._chain = route.around(self._join)
        self._tickets: dict[str, _Ticket] = {}
        """The members that are on their way, by message id."""
        self._circles: dict[str, _Circle] = {}
        self._pending: list[_Ticket] = []
        self._turns = 0
        """Batches that have begun and wait for their turn; each will take up to `size` of what is pending then."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_last_call = False
        """The room is used up: who has been received, but has not joined yet, is waited for a moment longer."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def attempt(self, delivery: Delivery, message: Message[Any]) -> Fate | None:
        """Take one message through the middleware and a batch; `None` when its batch said nothing of it."""
        ticket = _Ticket(delivery, message, self._circles.pop(message.id, None))
        self._tickets[message.id] = ticket
        delivery.company = None
        happened: Fate = Release()
        try:
            if delivery.begin():
                happened = sound(await self._chain(message))
        except BaseException as error:  # noqa: BLE001  # a middleware may raise anything
            happened, ticket.is_answered = classify(error), False
        finally:
            delivery.end()
            del self._tickets[message.id]
            if ticket.circle is not None:
                if ticket.run is None and (delivery.cause is not None or not isinstance(happened, Ack)):
                    ticket.circle.fail(message.id)
                self._begin(ticket.circle.without(message.id))
        fate: Fate | None = None if ticket.is_void else happened
        if delivery.cause is not None and not ticket.is_answered:
            fate = interrupted(delivery.cause, has_run=ticket.run is not None)
        return fate if ticket.circle is None else await ticket.circle.counted(message.id, fate)

    def expect(self, deliveries: Sequence[Delivery]) -> None:
        """The next attempts of these are one batch, in this order."""
        circle = _Circle(deliveries)
        self._circles.update((delivery.received.id, circle) for delivery in deliveries)

    def skip(self, message_id: str, *, is_done: bool) -> None:
        """Do not wait for a message that ended before it came here; unless it is done, nobody behind it is handled."""
        circle = self._circles.pop(message_id, None)
        if circle is not None:
            if not is_done:
                circle.fail(message_id)
            circle.ended(message_id, is_done=is_done)
            self._begin(circle.without(message_id))

    def flush(self) -> None:
        """Begin as many batches as what is pending needs."""
        self._is_last_call = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._pending) > self._turns * self._batch.size:
            self._turns += 1
            self._launch(self._in_turn())

    async def _join(self, message: Message[Any]) -> Outcome:
        """Wait for a batch to handle the message; the innermost of its middleware."""
        ticket = self._tickets[message.id]
        if ticket.answer.done():  # a middleware tries again
            ticket.answer = asyncio.get_running_loop().create_future()
        ticket.message = message
        if ticket.circle is not None:
            self._begin(ticket.circle.join(ticket))
        elif ticket.delivery.is_alone:
            self._begin([ticket])
        else:
            self._add(ticket)
        try:
            return await ticket.answer
        except asyncio.CancelledError:
            if ticket.answer.done() and not ticket.answer.cancelled():
                ticket.is_answered = True
                return ticket.answer.result()
            if not ticket.is_void:
                await self._withdraw(ticket)
            raise

    def _add(self, ticket: _Ticket) -> None:
        self._pending.append(ticket)
        if self._timer is None:
            self._flush_in(self._batch.window_seconds)
        if len(self._pending) >= (self._turns + 1) * self._batch.size or self._calls.context.is_draining:
            self.flush()
        elif self._room.is_full and not self._is_last_call:
            self._is_last_call = True
            self._flush_in(min(LAST_CALL_SECONDS, self._batch.window_seconds))

    def _flush_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.flush)

    async def _withdraw(self, ticket: _Ticket) -> None:
        if ticket in self._pending:
            self._pending.remove(ticket)
        elif ticket.run is not None:
            await ticket.run.leave(ticket)

    def _begin(self, tickets: list[_Ticket]) -> None:
        """Handle exactly these."""
        if tickets:
            self._launch(self._by_themselves(tickets))

    def _launch(self, batch: Any) -> None:
        task = asyncio.create_task(batch, name=f"batch-{self._route.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_turn(self) -> None:
        tickets: list[_Ticket] = []
        async with self._room.turn(self._route, lambda: _deliveries(tickets or self._pending[: self._batch.size])):
            self._turns -= 1
            tickets, self._pending = self._pending[: self._batch.size], self._pending[self._batch.size :]
            if tickets:
                await self._handle(tickets)

    async def _by_themselves(self, tickets: list[_Ticket]) -> None:
        async with self._room.turn(self._route, lambda: _deliveries(tickets)):
            if still_there := self._still_there(tickets):
                await self._handle(still_there)

    def _still_there(self, tickets: Sequence[_Ticket]) -> list[_Ticket]:
        """Return who has not left meanwhile; in a FIFO group nobody overtakes one who has."""
        for ticket in tickets:
            if ticket.circle is not None and ticket.answer.done():
                ticket.circle.fail(ticket.message.id)
            elif ticket.circle is not None and not ticket.circle.admits(ticket):
                _void(ticket)
        return [ticket for ticket in tickets if not ticket.answer.done()]

    async def _handle(self, tickets: list[_Ticket]) -> None:
        call, task = Call(self._calls, self._route.name), asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine of asyncio always runs in a task
        run = _Run(tickets, call, task)
        seconds = self._route.timeout_seconds or self._calls.context.settings.handler_timeout_seconds
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, run.time_is_up)
        company = Company() if len(tickets) > 1 else None
        outcomes: Sequence[Outcome | Exception] | None = None
        failure: Outcome | None = None
        try:
            call.start()
            for ticket in tickets:
                ticket.delivery.company = company
                call.take(ticket.delivery, ticket.message)
            outcomes = await self._route.handler.call_batch([ticket.message for ticket in tickets])
        except BaseException as error:  # noqa: BLE001  # a handler may raise anything
            failure = classify(error)
        finally:
            if timer is not None:
                timer.cancel()
            call.end()
        if run.is_out_of_time:
            outcomes, failure = None, Retry(reason=RAN_OUT_OF_TIME)
        stayed = [ticket for ticket in tickets if ticket not in run.left]
        if outcomes is not None:
            told = dict(zip(tickets, outcomes, strict=True))
            if company is not None:
                company.has_success = any(isinstance(outcome, Ack) for outcome in outcomes)
            self._answer({ticket: told[ticket] for ticket in stayed})
        elif run.left and not run.is_out_of_time:
            self._again(stayed)
        elif self._batch.on_error == "split" and len(tickets) > 1:
            self._split(stayed)
        else:
            self._answer(dict.fromkeys(stayed, failure or Retry()))

    def _answer(self, outcomes: "dict[_Ticket, Outcome | Exception] | dict[_Ticket, Outcome]") -> None:
        for ticket, outcome in outcomes.items():
            if ticket.answer.done():
                continue
            if isinstance(outcome, Exception):
                ticket.answer.set_exception(outcome)
            else:
                ticket.answer.set_result(outcome)

    def _again(self, tickets: list[_Ticket]) -> None:
        """Handle those whose batch was ended for another one; in a FIFO group their order is not for us to keep."""
        in_circles = [ticket for ticket in tickets if ticket.circle is not None]
        for ticket in in_circles:
            _void(ticket)
        self._begin([ticket for ticket in tickets if ticket.circle is None])

    def _split(self, tickets: list[_Ticket]) -> None:
        for ticket in tickets:
            if ticket.circle is None:
                ticket.run = None
                self._begin([ticket])
            else:
                ticket.delivery.is_alone = True
                _void(ticket)


def _deliveries(tickets: Sequence[_Ticket]) -> list[Delivery]:
    return [ticket.delivery for ticket in tickets]


def _void(ticket: _Ticket) -> None:
    ticket.is_void = True
    ticket.answer.cancel()
