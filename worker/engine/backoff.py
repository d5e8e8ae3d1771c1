"""Delays, as pure functions: full jitter for errors of AWS, equal jitter for retries of messages."""

import random

__all__ = ["equal_jitter", "full_jitter"]


def full_jitter(failures: int, *, base_seconds: float, cap_seconds: float) -> float:
    """Return 0 up to `base * 2^(failures - 1)` seconds, at most `cap`: many workers that failed together spread out."""
    return random.uniform(0, _ceiling(failures, base_seconds, cap_seconds))


def equal_jitter(failures: int, *, base_seconds: float, cap_seconds: float) -> float:
    """Return half of `base * 2^(failures - 1)` seconds and up to as much again: a retry never comes back at once."""
    half = _ceiling(failures, base_seconds, cap_seconds) / 2
    return half + random.uniform(0, half)


def _ceiling(failures: int, base_seconds: float, cap_seconds: float) -> float:
    return float(min(cap_seconds, base_seconds * 2 ** min(max(failures, 1) - 1, 32)))
