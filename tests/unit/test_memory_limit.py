"""The room of all queues against the container's memory (R10)."""

from pathlib import Path

import pytest

from worker.fleet.memory_limit import memory_warning


def test_room_that_does_not_fit_the_limit_is_warned_about(tmp_path: Path) -> None:
    """100 messages of 1 MiB, received, decoded and validated, do not fit 256 MiB."""
    limit = tmp_path / "memory.max"
    limit.write_text(f"{256 << 20}\n")
    warning = memory_warning(100, [limit])
    assert warning is not None
    assert "100 messages" in warning
    assert "256 MiB" in warning


@pytest.mark.parametrize("text", ["max", "268435456", "9223372036854771712", ""])
def test_no_limit_or_enough_of_it_is_no_warning(tmp_path: Path, text: str) -> None:
    """`max`, cgroup v1's huge number and an unreadable file mean that nothing is known."""
    limit = tmp_path / "memory.max"
    limit.write_text(text)
    assert memory_warning(10, [tmp_path / "missing", limit]) is None


def test_payloads_from_s3_count_too(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{256 << 20}\n")
    assert memory_warning(10, [limit], payload_bytes=10 << 20) is None
    warning = memory_warning(10, [limit], payload_bytes=100 << 20)
    assert warning is not None
    assert "415 MiB" in warning
