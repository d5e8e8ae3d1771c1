"""Rules of `worker.aws.faults`."""

import aiohttp
import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from worker.aws.faults import entry_error, fault_of, reading_an_answer, source_error
from worker.errors import EntryError, Fault, SourceError


def refusal(code: str, message: str = "", status: int = 400) -> boto.ClientError:
    return boto.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "ReceiveMessage"
    )


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        ("RequestThrottled", 403, Fault.THROTTLED),
        ("ThrottlingException", 400, Fault.THROTTLED),
        ("Throttling", 400, Fault.THROTTLED),
        ("ThrottledException", 400, Fault.THROTTLED),
        ("KMS.ThrottlingException", 400, Fault.THROTTLED),
        ("KmsThrottled", 400, Fault.THROTTLED),
        ("AWS.SimpleQueueService.OverLimit", 403, Fault.THROTTLED),
        ("429", 429, Fault.THROTTLED),
        ("AccessDenied", 403, Fault.DENIED),
        ("AccessDeniedException", 400, Fault.DENIED),
        ("KMS.AccessDeniedException", 400, Fault.DENIED),
        ("KmsAccessDenied", 400, Fault.DENIED),
        ("KMS.DisabledException", 400, Fault.DENIED),
        ("AuthorizationError", 403, Fault.DENIED),
        ("403", 403, Fault.DENIED),
        ("QueueDoesNotExist", 400, Fault.MISSING),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, Fault.MISSING),
        ("com.amazonaws.sqs#QueueDoesNotExist", 400, Fault.MISSING),
        ("NotFound", 404, Fault.MISSING),
        ("ExpiredToken", 403, Fault.EXPIRED),
        ("ExpiredTokenException", 400, Fault.EXPIRED),
        ("InvalidClientTokenId", 403, Fault.EXPIRED),
        ("UnrecognizedClientException", 400, Fault.EXPIRED),
        ("RequestTimeTooSkewed", 403, Fault.EXPIRED),
        ("RequestExpired", 400, Fault.EXPIRED),
        ("ReceiptHandleIsInvalid", 404, Fault.LOST),
        ("MessageNotInflight", 400, Fault.LOST),
        ("AWS.SimpleQueueService.MessageNotInflight", 400, Fault.LOST),
        ("InternalError", 400, Fault.UNAVAILABLE),
        ("ServiceUnavailable", 503, Fault.UNAVAILABLE),
        ("Unknown", 500, Fault.UNAVAILABLE),
        ("408", 408, Fault.UNAVAILABLE),
        ("502", 502, Fault.UNAVAILABLE),
        ("404", 404, Fault.UNAVAILABLE),
        ("InvalidParameterValue", 400, Fault.INVALID),
        ("InvalidMessageContents", 400, Fault.INVALID),
        ("413", 413, Fault.INVALID),
        ("NeverHeardOf", 400, Fault.INVALID),
    ],
)
def test_the_code_decides_before_the_status(code: str, status: int, fault: Fault) -> None:
    """A throttle that arrives as 403 is a throttle; only an unknown code leaves it to the status (R6)."""
    error = source_error(refusal(code, status=status))
    assert (error.fault, error.code) == (fault, code)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Value AQEB for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.", Fault.LOST),
        ("Value AQEB is invalid. Reason: Message is not available for visibility timeout change.", Fault.LOST),
        ("Value 43201 for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200.", Fault.INVALID),
        ("Total VisibilityTimeout for the message is beyond the limit [43200 seconds]", Fault.INVALID),
    ],
)
def test_an_invalid_parameter_means_a_lost_lease_only_when_it_is_the_receipt(message: str, fault: Fault) -> None:
    """`InvalidParameterValue` about the handle is a lost lease; about a number it is our mistake (L3)."""
    assert fault_of("InvalidParameterValue", message) is fault


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Signature expired: 20261121T100000Z is now earlier than 20261121T101500Z", Fault.EXPIRED),
        ("Signature not yet current: 20261121T120000Z is still later than 20261121T101500Z", Fault.EXPIRED),
        ("The request signature we calculated does not match the signature you provided.", Fault.DENIED),
    ],
)
def test_a_signature_from_another_time_may_heal_and_a_wrong_one_is_denied(message: str, fault: Fault) -> None:
    """A suspended host signs too late for a while; a wrong secret stays wrong (R6)."""
    assert fault_of("SignatureDoesNotMatch", message) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), Fault.UNAVAILABLE),
        (boto.ReadTimeoutError(endpoint_url="http://x"), Fault.UNAVAILABLE),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), Fault.UNAVAILABLE),
        (boto.ConnectionClosedError(endpoint_url="http://x"), Fault.UNAVAILABLE),
        (boto.SSLError(endpoint_url="http://x", error="bad"), Fault.UNAVAILABLE),
        (boto.HTTPClientError(error="bad"), Fault.UNAVAILABLE),
        (aiohttp.ClientPayloadError("cut"), Fault.UNAVAILABLE),
        (ConnectionResetError("reset"), Fault.UNAVAILABLE),
        (TimeoutError(), Fault.UNAVAILABLE),
        (ResponseParserError("not JSON"), Fault.UNAVAILABLE),
        (ValueError("not JSON"), Fault.UNAVAILABLE),
        (RuntimeError("Session is closed"), Fault.UNAVAILABLE),
        (boto.NoCredentialsError(), Fault.EXPIRED),
        (boto.CredentialRetrievalError(provider="iam-role", error_msg="down"), Fault.EXPIRED),
        (boto.UnauthorizedSSOTokenError(), Fault.EXPIRED),
        (boto.ParamValidationError(report="bad"), Fault.INVALID),
    ],
)
def test_every_exception_becomes_a_source_error(error: Exception, fault: Fault) -> None:
    """Whatever the client library raises has a fault, so no loop dies of it (R6)."""
    translated = source_error(error)
    assert (translated.fault, translated.code) == (fault, type(error).__name__)


def test_a_source_error_passes_unchanged() -> None:
    error = SourceError(Fault.MISSING, "QueueDoesNotExist")
    assert source_error(error) is error


def test_details_keep_one_short_line() -> None:
    """AWS quotes the signed request, session token included, below the first line of a signature error."""
    said = "The request signature does not match.\n\nThe canonical string was\nx-amz-security-token:SECRET"
    assert source_error(refusal("SignatureDoesNotMatch", said, 403)).detail == "The request signature does not match."
    assert len(source_error(refusal("Unknown", "x" * 5000)).detail) <= 200


def test_a_parse_error_does_not_quote_the_answer() -> None:
    """The text of a parse error may hold a payload."""
    assert "SECRET" not in str(source_error(ResponseParserError("invalid XML received: SECRET")))


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (
            {"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True, "Message": "no"},
            EntryError(Fault.LOST, "ReceiptHandleIsInvalid", "no"),
        ),
        (
            {"Id": "0", "Code": "InternalError", "SenderFault": False},
            EntryError(Fault.UNAVAILABLE, "InternalError", ""),
        ),
        ({"Id": "0", "Code": "Odd", "SenderFault": False}, EntryError(Fault.UNAVAILABLE, "Odd", "")),
        ({"Id": "0", "Code": "Odd", "SenderFault": True}, EntryError(Fault.INVALID, "Odd", "")),
        ({"Id": "0"}, EntryError(Fault.INVALID, "Unknown", "")),
    ],
)
def test_a_failed_entry_is_translated_like_a_failed_call(failed: dict[str, object], expected: EntryError) -> None:
    """An unknown code that is not the sender's fault may be tried again (S1)."""
    assert entry_error(failed) == expected


@pytest.mark.parametrize("error", [KeyError("Id"), ValueError("ten"), IndexError("11"), TypeError("None")])
def test_an_answer_that_breaks_the_promise_is_unavailable(error: Exception) -> None:
    with pytest.raises(SourceError) as raised, reading_an_answer():
        raise error
    assert raised.value.fault is Fault.UNAVAILABLE
