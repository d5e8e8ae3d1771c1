"""The lane: what botocore does for each call to SQS, done by less code, on the client's own connections.

Half of a worker's CPU is botocore's way from a request that is written to an answer that is parsed: a dozen events, a request object and
its copy, a signature whose key is derived anew, an answer that is compared with its model. botocore lets a handler of the event `before-call`
answer instead, and that is what this is: parameters, endpoint, credentials, connections, proxies, certificates and errors stay botocore's.
"""

from base64 import b64decode
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from botocore.parsers import ResponseParserError

from worker.aws.signature import Signer

__all__ = ["Lane"]

_OK: Final = 300
_SIGNATURES: Final = ("v4", None)


class Lane:
    """Answers the calls of one client of SQS; what it does not know by heart it leaves to botocore.

    That is: another signature than version 4, no credentials, an endpoint with a path, and every answer that tells of an error.
    """

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint
        self._signers: dict[tuple[str, str, str], Signer] = {}
        self.calls = 0
        """How many calls it has taken."""

    @classmethod
    def take(cls, client: Any) -> "Lane | None":
        """Let it answer a client's calls from now on; `None` for one of a release that is built otherwise, which answers itself."""
        endpoint = getattr(client, "_endpoint", None)  # there is no public way to its connections
        if not (hasattr(endpoint, "http_session") and hasattr(endpoint, "_response_parser_factory")):
            return None
        lane = cls(endpoint)
        client.meta.events.register_last("before-call.sqs", lane.answer, unique_id="longshore-lane")
        return lane

    async def answer(
        self, *, model: Any, params: dict[str, Any], request_signer: Any, context: dict[str, Any], **_: object
    ) -> tuple[Any, dict[str, Any]] | None:
        """Return botocore's two views of the answer, or `None` for what botocore is to do itself."""
        # Asked anew each time, so that they are renewed as ever.
        credentials = getattr(request_signer, "_credentials", None)
        is_v4 = request_signer.signature_version == "v4" and context.get("auth_type") in _SIGNATURES
        if credentials is None or not is_v4:
            return None
        signer = self._signer(params["url"], context.get("signing", {}), request_signer)
        if signer is None:
            return None
        keys = await credentials.get_frozen_credentials()
        body: bytes = params["body"]
        request = SimpleNamespace(
            method="POST",
            url=params["url"],
            headers=signer.sign(params["headers"], body, keys),
            body=body,
            stream_output=False,
            context=context,
        )
        self.calls += 1
        http = await self._endpoint.http_session.send(request)
        content: bytes = await http.content
        return http, _read(content) if http.status_code < _OK else await self._error(http, content, model)

    def _signer(self, url: str, signing: dict[str, Any], request_signer: Any) -> Signer | None:
        service = signing.get("signing_name") or request_signer.signing_name
        region = signing.get("region") or request_signer.region_name
        found = self._signers.get((url, service, region))
        if found is None:
            parts = urlsplit(url)
            if parts.path not in {"", "/"} or parts.query or signing.get("request_credentials"):
                return None
            found = self._signers[url, service, region] = Signer(url, service=service, region=region)
        return found

    async def _error(self, http: Any, content: bytes, model: Any) -> dict[str, Any]:
        parser = self._endpoint._response_parser_factory.create_parser(model.service_model.resolved_protocol)  # noqa: SLF001
        answer = {
            "headers": http.headers,
            "status_code": http.status_code,
            "body": content,
            "context": {"operation_name": model.name},
        }
        parsed: dict[str, Any] = await parser.parse(answer, model.output_shape)
        return parsed


def _read(content: bytes) -> dict[str, Any]:
    """Return an answer's JSON as botocore's parser does: all of SQS's is as its model says, but for binary attributes, and null is nothing."""
    try:
        answer = orjson.loads(content) if content else {}
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise ResponseParserError("the answer is no JSON object")
    if b"null" in content:  # emulators, or a payload that has the word
        answer = _without_nulls(answer)
    for message in answer.get("Messages", ()):
        for attribute in message.get("MessageAttributes", {}).values():
            if (binary := attribute.get("BinaryValue")) is not None:
                attribute["BinaryValue"] = b64decode(binary)
    return answer


def _without_nulls(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _without_nulls(value) for name, value in found.items() if value is not None}
    return [_without_nulls(value) for value in found] if isinstance(found, list) else found
