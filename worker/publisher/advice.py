"""Advice about events, given once per event type: it warns of what works, but will be regretted."""

import re

import structlog

__all__ = ["LARGE_BYTES", "Advice"]

LARGE_BYTES = 65_536
"""SNS bills every 64 KiB of a message as a publish of its own (aws.amazon.com/sns/pricing)."""

_MAX_NAMES = 1_000
"""Names beyond these are made of ids, or worse; they are not kept."""
_DOTTED = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)+")
_VERSION = re.compile(r"\.v?\d+$")
_WORD = re.compile(r"[a-z]+")
_PARTICIPLE = re.compile(
    r"\w+ed|begun|bought|bound|broken|brought|built|caught|chosen|cut|done|drawn|fallen|felt|forgotten|found|frozen|given|"
    r"gone|got|grown|held|hit|kept|known|laid|left|lent|lost|made|met|overdue|paid|put|read|risen|run|seen|sent|set|shown|"
    r"shut|sold|spent|split|spoken|stolen|sunk|taken|thrown|told|torn|undone|withdrawn|won|written"
)

log = structlog.get_logger("publisher")


class Advice:
    """Warns once per event type of a name that says no event, and of payloads that should be references."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._large: set[str] = set()

    def about_name(self, event_type: str) -> None:
        """Warn unless the name says what happened: `order.created`, not `create.order` or `OrderCreated`."""
        if _is_new(event_type, self._named) and not says_what_happened(event_type):
            log.warning(
                "an event type should say what happened: noun.verbed in lower case, such as order.created",
                event_type=event_type,
            )

    def about_size(self, event_type: str, size_bytes: int) -> None:
        """Warn of a message of more than 64 KiB."""
        if size_bytes > LARGE_BYTES and _is_new(event_type, self._large):
            log.warning(
                "a large event: publish a reference instead, such as the order's id; SNS bills each 64 KiB as a publish",
                event_type=event_type,
                size_bytes=size_bytes,
            )


def says_what_happened(event_type: str) -> bool:
    """Return whether the name is dotted, in lower case, and ends in something like a past participle."""
    name = _VERSION.sub("", event_type)
    if not _DOTTED.fullmatch(name):
        return False
    words = _WORD.findall(name.rpartition(".")[2])
    return any(map(_PARTICIPLE.fullmatch, words))


def _is_new(name: str, names: set[str]) -> bool:
    if name in names or len(names) >= _MAX_NAMES:
        return False
    names.add(name)
    return True
