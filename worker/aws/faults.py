"""What AWS's refusals mean: error codes, per-entry failures and exceptions become `Fault`s.

The code decides, not the HTTP status: a throttle or a wrong queue may come as 403.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from worker.errors import EntryError, Fault, SourceError

__all__ = ["entry_error", "fault_of", "reading_an_answer", "source_error"]

_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "OverLimit",  # too many messages in flight: room comes back when some are settled
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_DENIED = frozenset(
    {
        "AccountProblem",
        "AuthorizationError",
        "AuthorizationErrorException",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "SubscriptionRequiredException",
        "UnauthorizedOperation",
    }
)
_MISSING = frozenset(
    {
        "NoSuchBucket",
        "NoSuchKey",
        "NonExistentQueue",
        "NotFound",
        "NotFoundException",
        "QueueDoesNotExist",
        "ResourceNotFound",
    }
)
_EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",  # the key was rotated away: the provider may have a newer one
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_LOST = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid"})
_UNAVAILABLE = frozenset(
    {"InternalError", "InternalErrorException", "InternalFailure", "RequestTimeout", "RequestTimeoutException"}
)

_ABOUT_THE_RECEIPT = re.compile(r"receipt ?handle|available for visibility timeout change", re.IGNORECASE)
_ABOUT_THE_CLOCK = re.compile(r"signature expired|signature not yet current|expired|too skewed", re.IGNORECASE)
_BEFORE_THE_CODE = re.compile(r"^.*#|^AWS\.SimpleQueueService\.|^AWS\.|:.*$")

_STATUS_DENIED = frozenset({401, 403})
_STATUS_INVALID = frozenset({400, 413})
_STATUS_TOO_MANY = 429
_STATUS_REQUEST_TIMEOUT = 408
_STATUS_SERVER_ERROR = 500

_CREDENTIAL_ERRORS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    boto.LoginError,
    boto.ProfileNotFound,
    boto.ConfigParseError,
)
_OUR_MISTAKES = (
    boto.ParamValidationError,
    boto.ValidationError,
    boto.MissingParametersError,
    boto.NoRegionError,
    boto.EndpointProviderError,
)

_DETAIL_CHARACTERS = 200


def fault_of(code: str, message: str = "", *, status: int = 0) -> Fault:
    """Say why AWS refused, from its error code, its message, and the HTTP status where the code says nothing."""
    name = _BEFORE_THE_CODE.sub("", code)
    if "Throttl" in name or name in _THROTTLED:
        return Fault.THROTTLED
    if name.startswith(("KMS", "Kms", "AccessDenied")) or name in _DENIED | _EXPIRED:
        skewed = name == "SignatureDoesNotMatch" and _ABOUT_THE_CLOCK.search(message)
        return Fault.EXPIRED if skewed or name in _EXPIRED else Fault.DENIED
    if name in _MISSING:
        return Fault.MISSING
    if name in _LOST or (name.startswith("InvalidParameter") and _ABOUT_THE_RECEIPT.search(message)):
        return Fault.LOST
    if name in _UNAVAILABLE or "Unavailable" in name:
        return Fault.UNAVAILABLE
    return _fault_of_status(name, status)


def _fault_of_status(name: str, status: int) -> Fault:
    """Fall back on the status; a bare number as code means that the answer was not AWS's."""
    from_elsewhere = name.isdecimal()
    if from_elsewhere:
        status = int(name)
    if status == _STATUS_TOO_MANY:
        return Fault.THROTTLED
    if status >= _STATUS_SERVER_ERROR or status == _STATUS_REQUEST_TIMEOUT:
        return Fault.UNAVAILABLE
    if from_elsewhere and status in _STATUS_DENIED:
        return Fault.DENIED
    if from_elsewhere and status not in _STATUS_INVALID:
        return Fault.UNAVAILABLE
    return Fault.INVALID


def entry_error(failed: Mapping[str, Any]) -> EntryError:
    """Translate one item of a batch answer's `Failed` list."""
    code, message = str(failed.get("Code", "Unknown")), str(failed.get("Message") or "")
    fault = fault_of(code, message)
    if fault is Fault.INVALID and failed.get("SenderFault") is False:
        fault = Fault.UNAVAILABLE
    return EntryError(fault, code, _detail(message))


def source_error(error: Exception) -> SourceError:
    """Translate whatever a call to AWS raised; what nobody foresaw counts as an answer that cannot be parsed."""
    if isinstance(error, SourceError):
        return error
    if isinstance(error, boto.ClientError):
        answer: Mapping[str, Any] = error.response
        code = str(answer.get("Error", {}).get("Code") or "Unknown")
        message = str(answer.get("Error", {}).get("Message") or "")
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        return SourceError(fault_of(code, message, status=status), code, _detail(message))
    code = type(error).__name__
    if isinstance(error, _CREDENTIAL_ERRORS):
        return SourceError(Fault.EXPIRED, code, _detail(str(error)))
    if isinstance(error, _OUR_MISTAKES):
        return SourceError(Fault.INVALID, code, _detail(str(error)))
    if isinstance(error, (ResponseParserError, LookupError, TypeError, ValueError)):
        return SourceError(Fault.UNAVAILABLE, code, "the answer could not be parsed")  # it may hold a payload
    return SourceError(Fault.UNAVAILABLE, code, _detail(str(error)))


@contextmanager
def reading_an_answer() -> Iterator[None]:
    """Raise `SourceError` when an answer is not what AWS promises."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise source_error(error) from error


def _detail(message: str) -> str:
    """Keep the first line: what follows may quote the signed request, session token included."""
    return message.strip().split("\n", 1)[0][:_DETAIL_CHARACTERS]
