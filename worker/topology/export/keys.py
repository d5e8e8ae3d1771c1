"""KMS keys: what a role must be allowed on the keys that encrypt what it reads or writes."""

from collections.abc import Iterable, Iterator, Mapping

from worker.errors import UsageError
from worker.topology.export.grants import Grant
from worker.topology.place import Place

__all__ = ["Keys"]

_OF_AWS = "alias/aws/"
"""Keys that AWS manages: whoever may use the service may use them through it."""
_SUFFIXES = {"aws-cn": "amazonaws.com.cn"}


class Keys:
    """Finds the ARNs of keys as the fleet file names them; `known` tells the id or ARN behind an alias."""

    def __init__(self, place: Place, known: Mapping[str, str]) -> None:
        self._place = place
        self._known = known

    def grants(self, service: str, *, reads: Iterable[str] = (), writes: Iterable[str] = ()) -> Iterator[Grant]:
        """Yield what reading and writing through a service needs; raise `UsageError` for an alias that is not told.

        A statement is called after its service: one role may use keys through several.
        """
        suffix = _SUFFIXES.get(self._place.partition, "amazonaws.com")
        through = {"StringEquals": {"kms:ViaService": f"{service}.{self._place.region}.{suffix}"}}
        written = set(self._arns(writes))
        yield Grant(f"Decrypt{service.title()}", ("kms:Decrypt",), [*self._arns(reads), *written], through)
        yield Grant(f"Encrypt{service.title()}", ("kms:GenerateDataKey",), list(written), through)

    def _arns(self, keys: Iterable[str]) -> Iterator[str]:
        for key in keys:
            alias = key[key.find("alias/") :] if "alias/" in key else ""
            if not alias.startswith(_OF_AWS):
                yield self._arn(key, alias)

    def _arn(self, key: str, alias: str) -> str:
        told = self._known.get(alias) or self._known.get(key)
        if alias and (told is None or "alias/" in told):
            raise UsageError(
                f"kms_key is {key}, but IAM knows a key by its id alone: say which one it is, with --key {alias}=KEY_ID"
            )
        identity = told or key
        return (
            identity
            if identity.startswith("arn:")
            else f"arn:{self._place.partition}:kms:{self._place.region}:{self._place.account}:key/{identity}"
        )
