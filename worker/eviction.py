"""What a Redis must not do that keeps marks or permits: forget keys that have not ended."""

import asyncio
from typing import Any, Final

__all__ = ["doubts_of"]

KEEPS_ALL: Final = "noeviction"
ASK_SECONDS: Final = 2.0


async def doubts_of(client: Any, errors: tuple[type[Exception], ...]) -> list[str]:
    """Return a sentence when the server evicts keys; none where it does not, or does not tell.

    `errors` are those of the client, with `OSError`, which a timeout is, too: it may be forbidden to ask, and whether the server answers is for others to say.
    """
    try:
        async with asyncio.timeout(ASK_SECONDS):
            told = await client.info("memory")
    except errors:
        return []
    policy = told.get("maxmemory_policy", KEEPS_ALL)
    if policy == KEEPS_ALL:
        return []
    return [f"it has the maxmemory-policy {policy}, and forgets keys when its memory is full: set {KEEPS_ALL}"]
