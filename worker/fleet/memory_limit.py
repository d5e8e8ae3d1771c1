"""Whether the messages that may be in hand fit the memory that the container may use."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["LIMIT_FILES", "memory_warning"]

LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container its limit: cgroup v2, then v1."""

BASE_BYTES = 85 * 2**20
COPIES = 3
"""A message as it is received, decoded and validated."""
MESSAGE_BYTES = COPIES * 2**20
"""Of a message of 1 MiB, SQS's limit."""
UNLIMITED_BYTES = 2**60


def memory_warning(messages: int, limit_files: Sequence[Path] = LIMIT_FILES, *, payload_bytes: int = 0) -> str | None:
    """Return a sentence when that many of the largest messages would not fit; `None` when they do or no limit is known.

    `payload_bytes` is what payloads from S3 may add, all together.
    """
    limit = _limit_bytes(limit_files)
    needed = BASE_BYTES + MESSAGE_BYTES * messages + COPIES * payload_bytes
    if limit is None or needed <= limit:
        return None
    return (
        f"memory: {messages} messages of the largest size may be in hand, which takes up to "
        f"{needed >> 20} MiB, but the limit is {limit >> 20} MiB: lower concurrency or the size of batches, or raise the limit if messages are large"
    )


def _limit_bytes(limit_files: Sequence[Path]) -> int | None:
    for path in limit_files:
        try:
            limit = int(path.read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
        return limit if limit < UNLIMITED_BYTES else None
    return None
