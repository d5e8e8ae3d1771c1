"""The servers that stores and limits are measured with: those of the tests, where they are installed."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.postgres import Postgres, PostgresError
from support.redis import Redis, RedisError

__all__ = ["Postgres", "Redis", "started"]

S = TypeVar("S", Postgres, Redis)


@contextmanager
def started(server: S) -> Iterator[S | None]:
    """Start a server and end it; where that cannot be, say why and yield `None`."""
    with ExitStack() as stack:
        try:
            found: S | None = stack.enter_context(server)
        except (PostgresError, RedisError) as error:
            print(f"  NOT MEASURED: {error}")
            found = None
        yield found
