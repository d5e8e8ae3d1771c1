"""What a topic or queue is called inside a template.

A template's label is the identity of a resource: another label is another resource. So it follows from the name alone,
whatever else the fleet file holds, and two names never share one.
"""

import hashlib
import re
from collections.abc import Sequence

__all__ = ["joined", "words"]

_PLAIN = re.compile(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*")
_OURS = {"fifo", "from"}
"""Words that labels use themselves."""
_LONGEST = 80
"""Labels of subscriptions hold two names, and CloudFormation takes 255 characters."""


def words(name: str) -> list[str]:
    """Return the words of a name; whatever could read like another name gets a digest of its own."""
    bare = name.removesuffix(".fifo")
    found = re.findall(r"[A-Za-z0-9]+", bare[:_LONGEST])
    is_plain = _PLAIN.fullmatch(bare) and len(bare) <= _LONGEST and _OURS.isdisjoint(found)
    digest = [] if is_plain else [hashlib.sha256(name.encode()).hexdigest()[:8]]
    return [*found, *digest, *(["fifo"] if bare != name else [])]


def joined(parts: Sequence[str]) -> str:
    """Return the words in CloudFormation's way: `OrderEvents`."""
    return "".join(part[:1].upper() + part[1:] for part in parts)
