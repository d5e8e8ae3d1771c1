"""The check for the restricted Pod Security Standard finds what breaks it."""

from typing import Any

import pytest
from helm.pod_security import violations

pytestmark = pytest.mark.helm

CONTEXT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(pod_changes: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    container = {"name": "worker", "securityContext": {**CONTEXT, **changes}}
    return {"containers": [container], **(pod_changes or {})}


def test_a_restricted_pod_passes() -> None:
    assert violations(pod({"volumes": [{"name": "tmp", "emptyDir": {}}]})) == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (pod(privileged=True), "worker is privileged"),
        (pod(allowPrivilegeEscalation=None), "worker may escalate its privileges"),
        (pod(capabilities={}), "worker does not drop all capabilities"),
        (pod(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "worker adds capabilities"),
        (pod(runAsNonRoot=False), "worker may run as root"),
        (pod(runAsUser=0), "worker runs as root"),
        (pod(seccompProfile={"type": "Unconfined"}), "worker has no seccomp profile"),
        (pod(procMount="Unmasked"), "worker has a proc mount of its own"),
        (pod({"hostNetwork": True}), "hostNetwork is set"),
        (pod({"volumes": [{"name": "host", "hostPath": {}}]}), "the volume host is of a kind that is not allowed"),
        (pod({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}), "the sysctl kernel.msgmax is not allowed"),
        (pod({"initContainers": [{"name": "init", "securityContext": {**CONTEXT, "privileged": True}}]}), "init is privileged"),
    ],
)  # fmt: skip
def test_what_breaks_the_standard_is_found(given: dict[str, Any], found: str) -> None:
    assert violations(given) == [found]
