"""`Signer`: AWS Signature Version 4 of small JSON requests, with what does not change from one to the next kept.

docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

__all__ = ["Keys", "Signer"]

_PORTS = {"http": 80, "https": 443}
_UNSIGNED = frozenset({"user-agent", "expect", "transfer-encoding", "x-amzn-trace-id"})
"""Headers that something on the way may change."""


class Keys(Protocol):
    """Credentials of one moment, as botocore freezes them."""

    access_key: str
    secret_key: str
    token: str | None


class Signer:
    """Signs POST requests to the root of one URL, for one service in one region.

    The key of a day is derived once, not with four hashes for each request.
    """

    def __init__(self, url: str, *, service: str, region: str) -> None:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        is_default = parts.port is None or parts.port == _PORTS.get(parts.scheme)
        self._host = f"{host}" if is_default else f"{host}:{parts.port}"
        self._service = service
        self._region = region
        self._secret = self._day = ""
        self._key = b""

    def sign(self, headers: Mapping[str, str], body: bytes, keys: Keys, *, at: float | None = None) -> dict[str, str]:
        """Return the headers with date, token and signature; `at` is the moment, in Unix seconds, and now unless given."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
        signed = {**headers, "X-Amz-Date": moment}
        if keys.token:
            signed["X-Amz-Security-Token"] = keys.token
        lines = {name.lower(): " ".join(value.split()) for name, value in signed.items()}
        lines["host"] = self._host
        names = sorted(lines.keys() - _UNSIGNED)
        listed = ";".join(names)
        canonical = "\n".join(
            (
                "POST",
                "/",
                "",
                *(f"{name}:{lines[name]}" for name in names),
                "",
                listed,
                hashlib.sha256(body).hexdigest(),
            )
        )
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key_of(moment[:8], keys.secret_key), text.encode(), "sha256").hex()
        signed["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, SignedHeaders={listed}, Signature={signature}"
        )
        return signed

    def _key_of(self, day: str, secret: str) -> bytes:
        if (day, secret) != (self._day, self._secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key, self._day, self._secret = key, day, secret
        return self._key
