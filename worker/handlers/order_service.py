"""The order service: takes orders over HTTP and places them, by announcing them or by doing everything in the request.

`python -m worker.handlers.order_service` runs it until SIGTERM or Ctrl-C. Its environment: `ORDERS_MODE` (`event` or
`inline`), `ORDERS_TOPIC`, `ORDERS_HOST`, `ORDERS_PORT`; inline also what the consumers read: `ORDERS_DATABASE` and
`ORDERS_SMTP`. The inline mode is how such a service begins: it works until the first of its six
duties does not.
"""

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Final, Self

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import from_json

from worker import LongshoreError, PermanentError, Publisher, UsageError
from worker.handlers.database import Database, ReservationError, SoldOutError, UnknownProductError
from worker.handlers.events import ORDERS_TOPIC, Order, Payment
from worker.handlers.ledger import DeclinedError, PaymentError
from worker.handlers.mail import Mailer
from worker.handlers.orders import shop

__all__ = ["OrderService", "Place", "announce", "main", "place_by_event", "place_inline"]

Place = Callable[[Order], Awaitable[None]]
"""Places an order, or raises `LongshoreError`, `PaymentError` or `ReservationError`: the order is then not placed, or not wholly."""

_MAX_BODY_BYTES: Final = 65_536
_SHUTDOWN_SECONDS: Final = 5.0
_MAX_PORT: Final = 65_535


async def announce(orders: Publisher, event_type: str, order: Order) -> None:
    """Publish what happened to an order; its amount is an attribute, too, for filters. Raises `PublishError`."""
    await orders.publish(event_type, order, attributes={"amount": order.amount})


def place_by_event(orders: Publisher) -> Place:
    """Return how an order is placed by announcing it: whoever is concerned hears of it."""
    return partial(announce, orders, "order.created")


def place_inline(database: Database, mailer: Mailer) -> Place:
    """Return how an order is placed without a queue: six duties in one request, which fails when one of them does."""

    async def place(order: Order) -> None:
        await database.record_order(order)
        await database.ledger.authorize(Payment.of(order))
        await database.reserve(order)
        await mailer.send("order.created", order)
        await database.record_mail("order.created", order.order_id)
        await database.track("order.created", order)
        await database.check_fraud(order)

    return place


class OrderService:
    """Answers `POST /orders` and `GET /healthz` while inside `async with`; `new_id` names the next order.

    Entering raises `UsageError` when the address cannot be listened on. Leaving lets running requests end.
    """

    def __init__(
        self,
        place: Place,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._place = place
        self._host = host
        self._port = port
        self._new_id = new_id
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        application.add_routes([web.post("/orders", self._take), web.get("/healthz", self._healthz)])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for."""
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://[{self._host}]:{self.port}" if ":" in self._host else f"http://{self._host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"the order service cannot listen on {self._host} port {self._port} ({error.strerror}); "
                f"set ORDERS_HOST and ORDERS_PORT to an address of this machine and a free port"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        order_id = self._new_id()
        try:
            order = _order(await request.read(), order_id)
        except UsageError as mistake:
            return web.json_response({"error": str(mistake)}, status=400)
        try:
            await self._place(order)
        except (LongshoreError, PaymentError, ReservationError) as failure:
            return web.json_response({"error": f"the order cannot be placed: {failure}"}, status=_status(failure))
        return web.json_response({"order_id": order_id}, status=201)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


def _status(failure: Exception) -> int:
    """Return whether the order itself is to blame (402, 409, 422), or whether trying again can help (503)."""
    match failure:
        case DeclinedError():
            return 402
        case UnknownProductError() | SoldOutError():
            return 409
        case PermanentError():
            return 422
        case _:
            return 503


def _order(body: bytes, order_id: str) -> Order:
    """Read an order; the error names places and kinds, never values."""
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise UsageError(
            "the body is no JSON; send an object with user_id, email, product, quantity and amount"
        ) from None
    if not isinstance(fields, dict):
        raise UsageError("the body is no object; send one with user_id, email, product, quantity and amount")
    try:
        return Order.model_validate({**fields, "order_id": order_id})
    except ValidationError as error:
        faults = "; ".join(f"{fault['loc'][0]}: {fault['type']}" for fault in error.errors(include_input=False))
        raise UsageError(f"the body is no order ({faults})") from None


@asynccontextmanager
async def _way_to_place(environ: Mapping[str, str]) -> AsyncIterator[Place]:
    """Open what the mode needs."""
    match environ.get("ORDERS_MODE", "event"):
        case "event":
            async with Publisher(environ.get("ORDERS_TOPIC", ORDERS_TOPIC)) as orders:
                yield place_by_event(orders)
        case "inline":
            async with shop() as opened:
                yield place_inline(opened.database, opened.mailer)
        case mode:
            raise UsageError(f"ORDERS_MODE is {mode!r}, but must be event or inline")


def _port(environ: Mapping[str, str]) -> int:
    port = environ.get("ORDERS_PORT", "8000")
    if not (port.isascii() and port.isdecimal()) or int(port) > _MAX_PORT:
        raise UsageError(f"ORDERS_PORT is {port!r}, but must be a whole number from 0 to {_MAX_PORT:,}")
    return int(port)


async def _serve(environ: Mapping[str, str]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    port = _port(environ)
    async with (
        _way_to_place(environ) as place,
        OrderService(place, host=environ.get("ORDERS_HOST", "127.0.0.1"), port=port) as service,
    ):
        sys.stdout.write(f"taking orders at {service.url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> int:
    """Run the service; return the exit status: 0, 2 for an environment that cannot work, 1 for other failures."""
    try:
        asyncio.run(_serve(os.environ))
    except LongshoreError as error:
        sys.stderr.write(f"order service: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
