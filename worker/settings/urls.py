"""URLs of servers: what their clients could not read is refused before anybody connects."""

from urllib.parse import parse_qs, urlsplit

from worker.settings.base import found, masked, refusal

__all__ = ["refuse_unreadable"]


def refuse_unreadable(url: str) -> None:
    """Raise the refusal of a URL of PostgreSQL or Redis that names no host and port, or a database that is no number."""
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2].split(",")  # PostgreSQL takes several
        is_readable = 0 not in {urlsplit(f"//{host}").port for host in hosts}
    except ValueError:  # a port that is no number, a bracket without its partner
        is_readable = False
    if not is_readable or "@" in parts.path or parts.fragment:
        raise refusal(  # any part of it may be one of a password
            "is a URL that cannot be read, and is not quoted as it may hold a password; its port must be a number from "
            "1 to 65535, and @, /, :, ? and # in a password must be written %40, %2F, %3A, %3F and %23"
        )
    numbers = [parts.path.removeprefix("/").removesuffix("/") or "0", *parse_qs(parts.query).get("db", ())]
    if parts.scheme != "postgresql" and not all(number.isascii() and number.isdecimal() for number in numbers):
        raise refusal(
            f"is {found(masked(url))}, but a Redis numbers its databases: write a number after the host, such as /0, or nothing"
        )
