"""The store of marks, kept open by a process."""

from structlog.testing import capture_logs

from worker.fleet.marks import kept_open
from worker.idempotency import MemoryStore


class DoubtfulStore(MemoryStore):
    async def doubts(self) -> list[str]:
        return ["it forgets"]


async def test_what_is_doubtful_about_a_store_is_said_when_it_is_opened() -> None:
    """Once, and it is used all the same (I1)."""
    with capture_logs() as lines:
        async with kept_open(DoubtfulStore(retention_seconds=60)):
            pass
    assert lines == [{"event": "the idempotency store may hurt", "warning": "it forgets", "log_level": "warning"}]
