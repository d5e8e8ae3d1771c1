"""What a publish raises: one sentence with the event type, the topic and the cause, never with the payload."""

from collections.abc import Sequence
from typing import Final

from worker.errors import EntryError, Fault, LongshoreError, SourceError

__all__ = ["GIVEN_UP", "PublishError", "PublishManyError", "not_stored", "refused", "unpublished"]

GIVEN_UP: Final = EntryError(Fault.UNAVAILABLE, "GivenUp")
"""The answer to an event whose publisher was cancelled while it was closing."""


class PublishError(LongshoreError):
    """An event was not published, or nobody knows: after a lost answer it may have been.

    `fault.may_pass` says whether publishing it again later may succeed.
    """

    def __init__(self, text: str, *, event_type: str, fault: Fault, code: str = "") -> None:
        super().__init__(text)
        self.event_type = event_type
        self.fault = fault
        self.code = code
        """AWS's error code, or the class of the network error; empty when the event was refused before the call."""


class PublishManyError(LongshoreError):
    """Some events of `publish_many` were not published; all others were."""

    def __init__(self, results: Sequence[str | PublishError], topic: str) -> None:
        failed = [result for result in results if isinstance(result, PublishError)]
        super().__init__(
            f"{len(failed)} of {len(results)} events were not published to {topic}; the first: {failed[0]}"
        )
        self.results = results
        """For each event, in order: SNS's message id, or the error."""


def refused(event_type: object, complaint: str) -> PublishError:
    """Return the error for an event that was refused before any call."""
    is_name = isinstance(event_type, str) and event_type.strip() and event_type.isprintable()
    name = event_type if is_name else "the event"
    return PublishError(f"{name} was not published: {complaint}", event_type=str(event_type), fault=Fault.INVALID)


def unpublished(event_type: str, topic: str, error: EntryError, patience_seconds: float) -> PublishError:
    """Return the error for an event that SNS refused, or did not confirm in time."""
    said = f"{error.code}: {error.detail}" if error.detail else error.code
    match error.fault:
        case _ if error is GIVEN_UP:
            cause = "its publisher was cancelled before SNS had answered: publish it again; it may then arrive twice"
        case Fault.MISSING:
            cause = f"the topic does not exist ({said}): create it with `longshore topology apply`, or correct its name, region or account"  # fmt: skip
        case Fault.DENIED:
            cause = f"AWS denies it ({said}): allow these credentials the action sns:Publish on the topic"
        case Fault.EXPIRED:
            cause = f"AWS does not take the credentials ({said}): renew them"
        case fault if fault.may_pass:
            cause = f"no answer but {said} in {patience_seconds:g} s: publish it again later; it may then arrive twice"
        case _:
            cause = f"SNS refuses it ({said}): correct the event, it will never be taken as it is"
    verb = "confirmed by" if error.fault.may_pass and error.fault is not Fault.EXPIRED else "published to"
    text = f"{event_type} was not {verb} {topic}: {cause}"
    return PublishError(text, event_type=event_type, fault=error.fault, code=error.code)


def not_stored(event_type: str, bucket: str, error: SourceError, patience_seconds: float) -> PublishError:
    """Return the error for an event whose large payload S3 did not take: the event was surely not published."""
    match error.fault:
        case Fault.MISSING:
            cause = f"the bucket does not exist ({error}): create it, or correct its name"
        case Fault.DENIED:
            cause = f"AWS denies it ({error}): allow these credentials the action s3:PutObject on the bucket's objects"
        case Fault.EXPIRED:
            cause = f"AWS does not take the credentials ({error}): renew them"
        case fault if fault.may_pass:
            cause = f"no answer but {error} in {patience_seconds:g} s: publish it again later"
        case _:
            cause = f"S3 refuses it ({error})"
    text = f"{event_type} was not published, its large payload was not put into the bucket {bucket}: {cause}"
    return PublishError(text, event_type=event_type, fault=error.fault, code=error.code)
