"""AWS calls of one command: a few at a time, repeated while AWS throttles, refusals as one sentence."""

import asyncio
from types import TracebackType
from typing import Any, Self

from worker.aws.cloudwatch import cloudwatch_channel
from worker.aws.session import AwsClients
from worker.engine.backoff import full_jitter
from worker.errors import Fault, LongshoreError, SourceError, UsageError
from worker.topology.change import Call

__all__ = ["Calls", "refusal"]

AT_ONCE = {"sqs": 8, "sns": 8, "cloudwatch": 3}
"""Below the connections of a client, since waiting for one counts against a call's deadline; PutMetricAlarm is
granted three times a second."""
TRIES = {Fault.THROTTLED: 10, Fault.UNAVAILABLE: 3, Fault.TIMEOUT: 2}
BASE_SECONDS, CAP_SECONDS = 0.5, 5.0


class Calls:
    """Sends calls; an async context manager. Whatever is sent may be sent twice: SQS, SNS and CloudWatch do not mind."""

    def __init__(self, clients: AwsClients) -> None:
        self._cloudwatch = cloudwatch_channel(clients)
        self._channels = {"sqs": clients.settle, "sns": clients.sns, "cloudwatch": self._cloudwatch}
        self._turns = {service: asyncio.Semaphore(count) for service, count in AT_ONCE.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cloudwatch.close()

    async def send(self, call: Call) -> Any:
        """Return the answer; raise `UsageError` when AWS refuses, `LongshoreError` when it cannot be reached."""
        try:
            return await self._send(call)
        except SourceError as error:
            raise refusal(call, error) from error

    async def find(self, call: Call) -> Any | None:
        """Return the answer, or `None` when there is no such thing; raise as `send` does."""
        try:
            return await self._send(call)
        except SourceError as error:
            if error.fault is Fault.MISSING:
                return None
            raise refusal(call, error) from error

    async def _send(self, call: Call) -> Any:
        failures = 0
        async with self._turns[call.service]:
            while True:
                try:
                    return await self._channels[call.service].call(call.operation, **call.parameters)
                except SourceError as error:
                    failures += 1
                    if failures >= TRIES.get(error.fault, 1):
                        raise
                await asyncio.sleep(full_jitter(failures, base_seconds=BASE_SECONDS, cap_seconds=CAP_SECONDS))


def refusal(call: Call, error: SourceError) -> LongshoreError:
    """Return the sentence for a call that failed: who refused what, and what to do."""
    if error.fault is Fault.DENIED:
        return UsageError(
            f"{call.permission} is denied on the {call.about} ({error.code}): allow it to whoever runs this command"
        )
    if error.fault.may_pass:
        return LongshoreError(f"{call.permission} failed on the {call.about} ({error}): try again when AWS answers")
    return UsageError(f"AWS refused {call.permission} on the {call.about}: {error}")
