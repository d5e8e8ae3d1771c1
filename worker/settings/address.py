"""How queues and topics are named: a bare name, an ARN, or (queues) a URL."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

__all__ = ["Address", "by_name", "environment_name"]

_Kind = Literal["queue", "topic"]
_SERVICES: dict[_Kind, str] = {"queue": "sqs", "topic": "sns"}
_LONGEST: dict[_Kind, int] = {"queue": 80, "topic": 256}
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.fifo)?")
_ARN = re.compile(r"arn:[a-z-]+:(?P<service>\w+):(?P<region>[a-z0-9-]+):(?P<account>\d{12}):(?P<name>.+)")
_REGION_IN_HOST = re.compile(
    r"(?:(?:^|\.)sqs(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.)|(?:^([a-z]{2}(?:-[a-z]+)+-\d)\.queue\.)"
)
_FIFO = ".fifo"


@dataclass(frozen=True, slots=True)
class Address:
    """A queue's or topic's name, and whatever else its address tells."""

    name: str
    region: str | None = None
    account: str | None = None
    url: str | None = None

    @classmethod
    def of_queue(cls, text: str) -> "Address":
        """Read the name, ARN or URL of a queue; raise `ValueError`, which says what is allowed, when it is none."""
        return _from_url(text) if "://" in text else _parse(text, "queue")

    @classmethod
    def of_topic(cls, text: str) -> "Address":
        """Read the name or ARN of a topic; raise `ValueError`, which says what is allowed, when it is neither."""
        return _parse(text, "topic")

    @property
    def is_fifo(self) -> bool:
        """Whether it is FIFO: SQS and SNS decide by the end of the name."""
        return self.name.endswith(_FIFO)

    @property
    def dead_letter_name(self) -> str:
        """The usual name of its dead-letter queue: `orders-dlq`, `orders-dlq.fifo`."""
        return f"{self.name.removesuffix(_FIFO)}-dlq{_FIFO if self.is_fifo else ''}"


def environment_name(name: str) -> str:
    """Return how a key is spelled in the name of an environment variable: `order-processing` is `ORDER_PROCESSING`."""
    return re.sub(r"[-.]", "_", name).upper()


def by_name(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return the path of a setting with the bare name of a queue or topic that the file names by ARN or URL."""
    try:
        match path:
            case ("queues", str(key), *rest):
                return ("queues", Address.of_queue(key).name, *rest)
            case ("topics", str(key), *rest):
                return ("topics", Address.of_topic(key).name, *rest)
    except ValueError:  # no name at all: said when the settings are made
        pass
    return path


def _parse(text: str, kind: _Kind) -> Address:
    if not text.startswith("arn:"):
        return Address(_checked(text, kind))
    service = _SERVICES[kind]
    arn = _ARN.fullmatch(text)
    if arn is None or arn["service"] != service:
        raise ValueError(f"an ARN of the form arn:aws:{service}:REGION:ACCOUNT:NAME, or the {kind}'s name alone")
    return Address(_checked(arn["name"], kind), region=arn["region"], account=arn["account"])


def _from_url(text: str) -> Address:
    url = _split(text)
    parts = [part for part in url.path.split("/") if part]
    if (
        url.scheme not in {"http", "https"}
        or url.username is not None
        or url.query
        or len(parts) < len(("account", "name"))
    ):
        raise ValueError("a URL of the form https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, or the queue's name alone")
    region = _REGION_IN_HOST.search(url.hostname or "")
    account = parts[-2] if parts[-2].isdecimal() else None
    return Address(_checked(parts[-1], "queue"), region=region and (region[1] or region[2]), account=account, url=text)


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # a bracket without its partner
        return SplitResult("", "", "", "", "")


def _checked(name: str, kind: _Kind) -> str:
    longest = _LONGEST[kind]
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise ValueError(f"a {kind}'s name of 1 to {longest} letters, digits, - and _ (.fifo at the end makes it FIFO)")
    return name
