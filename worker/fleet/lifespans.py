"""A router's lifespan, entered once per process: when it fails, the log has the traceback and the user its name."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import structlog

from worker.errors import LongshoreError, UsageError
from worker.router import Router
from worker.sql.database import UnreachableError

__all__ = ["lifespan"]

log = structlog.get_logger("lifespan")


@asynccontextmanager
async def lifespan(router: Router, handlers: str) -> AsyncIterator[object]:
    """Yield what the router's lifespan yields; `handlers` is how the fleet file names the router.

    Raises `LongshoreError` with one sentence when the lifespan raises, on its way in or out.
    """
    stack = AsyncExitStack()
    with _named(handlers, "at the start"):
        state = await stack.enter_async_context(router.lifespan_context())
    try:
        yield state
    finally:
        with _named(handlers, "at the end"):
            await stack.aclose()


@contextmanager
def _named(handlers: str, when: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"handlers `{handlers}`: {error}") from None
    except UnreachableError as error:
        raise LongshoreError(f"handlers `{handlers}`: {error}") from None
    except (Exception, SystemExit) as error:
        log.exception("a lifespan raised", handlers=handlers, when=when)
        what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise LongshoreError(f"the lifespan of handlers `{handlers}` raised {when}: {what}") from error
