"""The restricted Pod Security Standard, as far as a pod's manifest can break it."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["violations"]

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
}
SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(pod: Mapping[str, Any]) -> list[str]:
    """Return what keeps the pod (its `spec`) out of a namespace that enforces the restricted standard."""
    return [*_of_the_pod(pod), *(each for container in _containers(pod) for each in _of_a_container(container, pod))]


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for kind in ("initContainers", "containers", "ephemeralContainers") for each in pod.get(kind, ())]


def _of_the_pod(pod: Mapping[str, Any]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{key} is set"
    for volume in pod.get("volumes", ()):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"the volume {volume['name']} is of a kind that is not allowed"
    context = pod.get("securityContext", {})
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess is set"
    for sysctl in context.get("sysctls", ()):
        if sysctl["name"] not in SYSCTLS:
            yield f"the sysctl {sysctl['name']} is not allowed"


def _of_a_container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext", {})
    yield from _of_an_identity(name, {**pod.get("securityContext", {}), **context})
    if context.get("privileged"):
        yield f"{name} is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate its privileges"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield f"{name} does not drop all capabilities"
    if not set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if context.get("procMount", "Default") != "Default":
        yield f"{name} has a proc mount of its own"
    for port in container.get("ports", ()):
        if port.get("hostPort"):
            yield f"{name} takes a port of the host"


def _of_an_identity(name: str, merged: Mapping[str, Any]) -> Iterator[str]:
    """What a container takes from its pod where it does not say otherwise."""
    if merged.get("runAsNonRoot") is not True:
        yield f"{name} may run as root"
    if merged.get("runAsUser") == 0:
        yield f"{name} runs as root"
    if merged.get("seccompProfile", {}).get("type") not in SECCOMP:
        yield f"{name} has no seccomp profile"
