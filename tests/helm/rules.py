"""What holds for whatever the chart makes: the parts of a release fit together, and the worker takes its fleet file."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helm.chart import Manifest, by_kind, pods

from helm import pod_security
from worker.settings import FleetSettings, load

__all__ = ["broken", "fleet_of", "queues_of"]

SPARE_SECONDS = 5
"""What the grace period has beyond the drain, as the fleet's own settings ask for."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
_SELECTING = ("PodDisruptionBudget", "PodMonitor")


def fleet_of(deployment: Manifest, manifests: list[Manifest], folder: Path) -> FleetSettings:
    """Return the settings that the worker of a Deployment has: the mounted file, its environment over it."""
    spec = deployment["spec"]["template"]["spec"]
    (mounted,) = (volume["configMap"]["name"] for volume in spec["volumes"] if volume["name"] == "config")
    (config,) = (
        each for each in by_kind(manifests, "ConfigMap") if each["metadata"]["name"] == mounted and not _hook(each)
    )
    file = folder / "fleet.yaml"
    file.write_text(config["data"]["fleet.yaml"])
    environ = {each["name"]: each["value"] for each in spec["containers"][0]["env"] if "value" in each}
    assert environ.pop("LONGSHORE_CONFIG") == "/etc/longshore/fleet.yaml"
    return load(file, environ=environ)


def queues_of(deployment: Manifest) -> list[str]:
    """Return the queues that the worker of a Deployment is told to consume."""
    command, *words = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (command, set(words[::2])) == ("run", {"--queue"})
    return [str(word) for word in words[1::2]]


def broken(manifests: list[Manifest], folder: Path) -> list[str]:
    """Return the rules that do not hold, a sentence each."""
    return [
        *_names(manifests),
        *_security(manifests),
        *_repetitions(manifests),
        *_queues(manifests, folder),
        *_scaling(manifests),
        *_selectors(manifests),
        *_accounts(manifests),
    ]


def _names(manifests: list[Manifest]) -> Iterator[str]:
    counts = Counter((each["kind"], each["metadata"]["name"]) for each in manifests)
    yield from (f"{kind}/{name} is made {count} times" for (kind, name), count in counts.items() if count > 1)
    for each in manifests:
        metadata = each["metadata"]
        name = metadata["name"].replace(".", "-") if each["kind"] == "ServiceAccount" else metadata["name"]
        if not _NAME.fullmatch(name) or (each["kind"] == "Service" and name[0].isdigit()):
            yield f"{each['kind']}/{metadata['name']} has a name that is none"
        labels = [metadata.get("labels", {}), *(pod["metadata"].get("labels", {}) for _, pod in pods([each]))]
        yield from (
            f"{each['kind']}/{metadata['name']} has the label {key}: {value}"
            for members in labels
            for key, value in members.items()
            if not _LABEL.fullmatch(value)
        )


def _security(manifests: list[Manifest]) -> Iterator[str]:
    for where, pod in pods(manifests):
        spec = pod["spec"]
        yield from (f"{where}: {each}" for each in pod_security.violations(spec))
        if spec["automountServiceAccountToken"] or spec["enableServiceLinks"]:
            yield f"{where} sees more of the cluster than it needs"
        if spec["securityContext"]["runAsUser"] == 0:
            yield f"{where} runs as root"
        for container in spec["containers"]:
            if not container["securityContext"]["readOnlyRootFilesystem"]:
                yield f"{where} may write everywhere"
            mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            if not {"/tmp", "/var/lib/longshore"} <= set(mounts):  # noqa: S108 - the pod's
                yield f"{where} has no place to write to"
            yield from (
                f"{where} mounts {name}, which is no volume"
                for name in mounts.values()
                if name not in {volume["name"] for volume in spec["volumes"]}
            )


def _repetitions(manifests: list[Manifest]) -> Iterator[str]:
    """No env name, volume name or mountPath stands twice in a container: a server-side apply refuses them."""
    for where, pod in pods(manifests):
        lists = [("volume", [each["name"] for each in pod["spec"]["volumes"]])]
        for container in pod["spec"]["containers"]:
            lists.append(("variable", [each["name"] for each in container["env"]]))
            lists.append(("mountPath", [each["mountPath"].rstrip("/") for each in container["volumeMounts"]]))
        yield from (
            f"{where} has the {what} {name} {count} times"
            for what, names in lists
            for name, count in Counter(names).items()
            if count > 1
        )


def _queues(manifests: list[Manifest], folder: Path) -> Iterator[str]:
    """Every queue is consumed by one Deployment, which drains within its grace period and is found by its probes."""
    deployments = by_kind(manifests, "Deployment")
    taken = Counter(queue for deployment in deployments for queue in queues_of(deployment))
    for deployment in deployments:
        fleet = fleet_of(deployment, manifests, folder)
        name = deployment["metadata"]["name"]
        if taken != Counter(dict.fromkeys(fleet.queues, 1)):
            yield f"{dict(taken)} are consumed, but the fleet has {list(fleet.queues)}"
        spec = deployment["spec"]["template"]["spec"]
        container = spec["containers"][0]
        stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if spec["terminationGracePeriodSeconds"] < fleet.drain_seconds + stop + SPARE_SECONDS:
            yield f"{name} is killed while it drains"
        if fleet.server.host in {"127.0.0.1", "::1", "localhost"}:
            yield f"{name} hides its probes"
        if container["ports"] != [{"name": "http", "containerPort": fleet.server.port, "protocol": "TCP"}]:
            yield f"{name} listens on {fleet.server.port}, but has {container['ports']}"
        probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
        if probes != {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}:
            yield f"{name} is probed at {probes}"


def _scaling(manifests: list[Manifest]) -> Iterator[str]:
    targets = Counter(each["spec"]["scaleTargetRef"]["name"] for kind in _SCALERS for each in by_kind(manifests, kind))
    for deployment in by_kind(manifests, "Deployment"):
        name = deployment["metadata"]["name"]
        if targets[name] + ("replicas" in deployment["spec"]) != 1:
            yield f"{name}: one of replicas and a scaler sets the number of pods, found {targets[name]} scalers"
        strategy = deployment["spec"]["strategy"]
        if strategy["type"] == "Recreate" and "rollingUpdate" in strategy:
            yield f"{name} is recreated, but has a rollingUpdate"
    names = {each["metadata"]["name"] for each in by_kind(manifests, "Deployment")}
    yield from (f"{target} is scaled, but is no Deployment" for target in targets if target not in names)


def _selectors(manifests: list[Manifest]) -> Iterator[str]:
    """Who selects pods finds workers, and neither tests nor the topology's Job."""
    found = [(where.split("/")[0] == "Deployment", pod["metadata"]["labels"]) for where, pod in pods(manifests)]
    for kind, selector in _selections(manifests):
        chosen = [is_worker for is_worker, labels in found if selector.items() <= labels.items()]
        if not chosen or not all(chosen):
            yield f"{kind} selects {selector}: workers are {chosen}"
    services = [each["metadata"]["labels"] for each in by_kind(manifests, "Service")]
    for monitor in by_kind(manifests, "ServiceMonitor"):
        if not any(monitor["spec"]["selector"]["matchLabels"].items() <= labels.items() for labels in services):
            yield "the ServiceMonitor selects no Service"


def _selections(manifests: list[Manifest]) -> Iterator[tuple[str, Mapping[str, str]]]:
    for each in by_kind(manifests, "Deployment"):
        yield "a Deployment", each["spec"]["selector"]["matchLabels"]
        for spread in each["spec"]["template"]["spec"].get("topologySpreadConstraints", ()):
            yield "a spread", spread["labelSelector"]["matchLabels"]
    for kind in _SELECTING:
        yield from ((f"a {kind}", each["spec"]["selector"]["matchLabels"]) for each in by_kind(manifests, kind))
    yield from (("a Service", each["spec"]["selector"]) for each in by_kind(manifests, "Service"))
    for each in by_kind(manifests, "NetworkPolicy"):
        yield "a NetworkPolicy", each["spec"]["podSelector"]["matchLabels"]


def _accounts(manifests: list[Manifest]) -> Iterator[str]:
    """What a hook needs is made by hooks before it; nothing is made that nobody uses."""
    made = {each["metadata"]["name"]: _hook(each) for each in by_kind(manifests, "ServiceAccount")}
    used: set[str] = set()
    for where, pod in pods(manifests):
        account = pod["spec"]["serviceAccountName"]
        used.add(account)
        is_early = where.startswith("Job/")
        if account in made and is_early and not made[account].startswith("pre-install"):
            yield f"{where} runs before its ServiceAccount is made"
    yield from (f"the ServiceAccount {name} is used by nobody" for name in made if name not in used)


def _hook(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"].get("annotations", {}).get("helm.sh/hook", ""))
