{{/* What the schema cannot say: combinations that cannot work. Each is one sentence; it starts on a line of its own, below Helm's. */}}

{{- define "longshore.refuse" -}}
{{- include "longshore.refuseFleet" . -}}
{{- include "longshore.refuseQueues" . -}}
{{- include "longshore.refuseGroups" . -}}
{{- include "longshore.refuseEnvironment" (list .Values.env "") -}}
{{- include "longshore.refuseVolumes" (list .Values.volumes .Values.volumeMounts "" .Values.topologyApply.enabled) -}}
{{- range $name, $own := (include "longshore.ownGroups" . | fromJson) -}}
{{- $group := include "longshore.group" (list $ $name $own) | fromJson -}}
{{- $where := hasKey ($.Values.groups | default dict) $name | ternary (printf "groups.%s." $name) "" -}}
{{- include "longshore.refuseEnvironment" (list $own.env $where) -}}
{{- include "longshore.refuseVolumes" (list $group.volumes $group.volumeMounts $where true) -}}
{{- include "longshore.refuseDrain" (list $ $group $where) -}}
{{- include "longshore.refuseScaling" (list $ $group $where) -}}
{{- end -}}
{{- include "longshore.refuseAccounts" . -}}
{{- include "longshore.refuseStrategy" . -}}
{{- if and .Values.serviceMonitor.enabled (regexMatch "^[0-9]" (include "longshore.fullname" .)) -}}
{{- fail (printf "\nserviceMonitor.enabled is true, but the Service it makes would be called %q, and a Service's name starts with a letter: set fullnameOverride, or use podMonitor" (include "longshore.fullname" .)) -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- fail "\npodMonitor.enabled and serviceMonitor.enabled are both true, but then every pod is scraped twice and every sum is doubled: enable one of them" -}}
{{- end -}}
{{- end -}}

{{- define "longshore.refuseFleet" -}}
{{- $fleet := .Values.fleet -}}
{{- if not $fleet.queues -}}
{{- fail "\nfleet.queues is empty, but must name at least one queue with its handlers: put the content of your fleet.yaml under `fleet:` in the values" -}}
{{- end -}}
{{- $server := $fleet.server | default dict -}}
{{- if has ($server.host | default "0.0.0.0") (list "127.0.0.1" "::1" "localhost") -}}
{{- fail (printf "\nfleet.server.host is %q, but probes come from outside of the pod and would not reach it: leave it out" $server.host) -}}
{{- end -}}
{{- if and (hasKey $server "port") (eq (int $server.port) 0) -}}
{{- fail "\nfleet.server.port is 0, but probes and monitors need a fixed one: leave it out for 8080, or name a port from 1 to 65535" -}}
{{- end -}}
{{- $aws := $fleet.aws | default dict -}}
{{- if and $aws.region .Values.aws.region (ne $aws.region .Values.aws.region) -}}
{{- fail (printf "\naws.region is %q, but fleet.aws.region is %q and wins: remove one of them" .Values.aws.region $aws.region) -}}
{{- end -}}
{{- if and $aws.endpoint_url .Values.aws.endpointUrl (ne $aws.endpoint_url .Values.aws.endpointUrl) -}}
{{- fail (printf "\naws.endpointUrl is %q, but fleet.aws.endpoint_url is %q and wins: remove one of them" .Values.aws.endpointUrl $aws.endpoint_url) -}}
{{- end -}}
{{- end -}}

{{- define "longshore.refuseQueues" -}}
{{- $fleet := .Values.fleet -}}
{{- $bare := include "longshore.queues" . | fromJson -}}
{{- if ne (len $bare) (len ($fleet.queues | default dict)) -}}
{{- fail (printf "\nfleet.queues has %d entries for %d queues (%s), but each must be there once, by name, ARN or URL: remove one" (len $fleet.queues) (len $bare) (keys $bare | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $region := include "longshore.region" . -}}
{{- range $key, $queue := $fleet.queues -}}
{{- if not (regexMatch "^(arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:|https?://[^/]+/([^/]+/)+)?[A-Za-z0-9_-]{1,80}([.]fifo)?$" $key) -}}
{{- fail (printf "\nfleet.queues has %q, but a queue is called by its name (letters, digits, - and _, and .fifo at the end), its ARN or its URL: correct it" $key) -}}
{{- end -}}
{{- if and $region (hasPrefix "arn:" $key) (ne $region (index (splitList ":" $key) 3)) -}}
{{- fail (printf "\nfleet.queues has %q, but the fleet runs in %q, and a fleet runs in one region: correct one of them" $key $region) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "longshore.refuseGroups" -}}
{{- $queues := keys (include "longshore.queues" . | fromJson) | sortAlpha -}}
{{- $owners := dict -}}
{{- range $group, $own := .Values.groups -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$" $group) -}}
{{- fail (printf "\ngroups has the name %q, but a group's name must be 1 to 20 small letters, digits and -, as it becomes a part of names in Kubernetes: rename it" $group) -}}
{{- end -}}
{{- if not ($own | default dict).queues -}}
{{- fail (printf "\ngroups.%s.queues is empty, but must name queues of the fleet (%s): add one, or remove the group" $group (join ", " $queues)) -}}
{{- end -}}
{{- range $own.queues -}}
{{- if not (has . $queues) -}}
{{- fail (printf "\ngroups.%s.queues names %q, which is not in fleet.queues (%s): correct the name, or add the queue to the fleet" $group . (join ", " $queues)) -}}
{{- end -}}
{{- if eq (get $owners .) $group -}}
{{- fail (printf "\ngroups.%s.queues names %q twice: remove one" $group .) -}}
{{- end -}}
{{- if hasKey $owners . -}}
{{- fail (printf "\ngroups.%s and groups.%s both name the queue %q, but a queue belongs to exactly one group: remove it from one of them" (get $owners .) $group .) -}}
{{- end -}}
{{- $_ := set $owners . $group -}}
{{- end -}}
{{- end -}}
{{- if .Values.groups -}}
{{- range $queues -}}
{{- if not (hasKey $owners .) -}}
{{- fail (printf "\nfleet.queues has %q, which is in none of the groups (%s), so nothing would consume it: add it to the queues of one of them" . (join ", " (keys $.Values.groups | sortAlpha))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables behind the chart's back: probes, mounts and the grace period are made from the values. */}}
{{- define "longshore.refuseEnvironment" -}}
{{- $instead := dict "LONGSHORE_CONFIG" "fleet" "LONGSHORE_STATE_DIR" "stateSizeLimit" "LONGSHORE_DRAIN_SECONDS" "fleet.drain_seconds, or drainSeconds of a group"
      "LONGSHORE_SERVER__HOST" "fleet.server.host" "LONGSHORE_SERVER__PORT" "fleet.server.port"
      "AWS_REGION" "aws.region" "AWS_ENDPOINT_URL" "aws.endpointUrl" -}}
{{- $where := index . 1 -}}
{{- $seen := list -}}
{{- range index . 0 -}}
{{- if hasKey $instead .name -}}
{{- fail (printf "\n%senv sets %s, which the chart sets itself: use %s" $where .name (get $instead .name)) -}}
{{- end -}}
{{- if has .name $seen -}}
{{- fail (printf "\n%senv sets %s twice: remove one" $where .name) -}}
{{- end -}}
{{- $seen = append $seen .name -}}
{{- end -}}
{{- end -}}

{{/* Volumes and mounts beside the chart's own: (list volumes mounts where whether the mounts must name a volume). */}}
{{- define "longshore.refuseVolumes" -}}
{{- $where := index . 2 -}}{{- $isWhole := index . 3 -}}
{{- $names := list "config" "state" "tmp" -}}
{{- $paths := list "/etc/longshore" "/var/lib/longshore" "/tmp" -}}
{{- range index . 0 -}}
{{- $name := toString (.name | default "") -}}
{{- if has $name (list "config" "state" "tmp") -}}
{{- fail (printf "\n%svolumes has the name %q, which is the chart's own: rename it" $where $name) -}}
{{- end -}}
{{- if has $name $names -}}
{{- fail (printf "\n%svolumes has the name %q twice, counting those of all groups: rename or remove one" $where $name) -}}
{{- end -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- range index . 1 -}}
{{- $name := toString (.name | default "") -}}{{- $path := clean (toString (.mountPath | default "")) -}}
{{- if has $path (list "/etc/longshore" "/var/lib/longshore" "/tmp") -}}
{{- fail (printf "\n%svolumeMounts mounts %q on %s, where the chart mounts its own volume: choose another path" $where $name $path) -}}
{{- end -}}
{{- if has $path $paths -}}
{{- fail (printf "\n%svolumeMounts mounts two volumes on %s, counting those of all groups: choose another path for one" $where $path) -}}
{{- end -}}
{{- if and $isWhole (not (has $name $names)) -}}
{{- fail (printf "\n%svolumeMounts names %q, which is in none of the volumes (%s): correct the name, or add the volume" $where $name (join ", " $names)) -}}
{{- end -}}
{{- $paths = append $paths $path -}}
{{- end -}}
{{- end -}}

{{/* ServiceAccounts that the chart would make twice. */}}
{{- define "longshore.refuseAccounts" -}}
{{- $made := list -}}
{{- $isShared := false -}}
{{- range $name, $own := (include "longshore.ownGroups" . | fromJson) -}}
{{- $group := include "longshore.group" (list $ $name $own) | fromJson -}}
{{- if not $group.hasOwnServiceAccount -}}
{{- $isShared = true -}}
{{- else if $group.serviceAccount.create -}}
{{- $made = append $made (list (printf "groups.%s.serviceAccount" $name) $group.serviceAccountName) -}}
{{- end -}}
{{- end -}}
{{- $fullname := include "longshore.fullname" . -}}
{{- if and $isShared .Values.serviceAccount.create -}}
{{- $made = prepend $made (list "serviceAccount" (include "longshore.serviceAccountName" (dict "account" .Values.serviceAccount "made" $fullname))) -}}
{{- end -}}
{{- with .Values.topologyApply -}}
{{- if and .enabled .serviceAccount.create -}}
{{- $made = append $made (list "topologyApply.serviceAccount" (include "longshore.serviceAccountName" (dict "account" .serviceAccount "made" (printf "%s-topology" $fullname)))) -}}
{{- end -}}
{{- end -}}
{{- $owners := dict -}}
{{- range $made -}}
{{- $where := index . 0 -}}{{- $name := index . 1 -}}
{{- if hasKey $owners $name -}}
{{- fail (printf "\n%s and %s both make the ServiceAccount %q, but it can be made once: set another name, or create: false, in one of them" (get $owners $name) $where $name) -}}
{{- end -}}
{{- $_ := set $owners $name $where -}}
{{- end -}}
{{- end -}}

{{- define "longshore.refuseStrategy" -}}
{{- $rolling := .Values.strategy.rollingUpdate | default dict -}}
{{- $isNone := "^0+%?$" -}}
{{- if and (ne (toString .Values.strategy.type) "Recreate") (regexMatch $isNone (toString $rolling.maxSurge)) (regexMatch $isNone (toString $rolling.maxUnavailable)) -}}
{{- fail "\nstrategy.rollingUpdate has maxSurge and maxUnavailable 0, so no pod could come or go: set one of them to 1, or use type: Recreate" -}}
{{- end -}}
{{- end -}}

{{- define "longshore.refuseDrain" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}{{- $where := index . 2 -}}
{{- $wait := 0 -}}
{{- $defaults := $root.Values.fleet.defaults | default dict -}}
{{- range $key, $queue := $root.Values.fleet.queues -}}
{{- $wait = max $wait (int (dig "wait_time_seconds" (dig "wait_time_seconds" 20 $defaults) ($queue | default dict))) -}}
{{- end -}}
{{- if lt (int $group.drainSeconds) (int (add $wait 5)) -}}
{{- fail (printf "\n%s is %d, but must be at least %d, which is the longest wait_time_seconds (%d) and 5: the last poll is never cut off, so lengthen the drain or shorten the poll" (ternary (printf "%sdrainSeconds" $where) "fleet.drain_seconds" $group.hasOwnDrain) (int $group.drainSeconds) (add $wait 5) $wait) -}}
{{- end -}}
{{- $least := add $group.drainSeconds $group.preStopSleepSeconds 5 -}}
{{- if lt (int $group.graceSeconds) (int $least) -}}
{{- fail (printf "\n%sterminationGracePeriodSeconds is %d, but must be at least %d, which is the drain (%d) and preStopSleepSeconds (%d) and 5: leave it out to have it computed, or shorten the drain" $where (int $group.graceSeconds) $least (int $group.drainSeconds) (int $group.preStopSleepSeconds)) -}}
{{- end -}}
{{- if and (gt (int $group.preStopSleepSeconds) 0) (semverCompare "<1.30.0-0" $root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "\n%spreStopSleepSeconds is %d, but needs Kubernetes 1.30 and this is %s: set it to 0" $where (int $group.preStopSleepSeconds) $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}

{{- define "longshore.refuseScaling" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}{{- $where := printf "%sautoscaling" (index . 2) -}}
{{- $scaling := $group.autoscaling -}}
{{- if ne $scaling.kind "none" -}}
{{- $least := int $scaling.minReplicas -}}
{{- if gt $least (int $scaling.maxReplicas) -}}
{{- fail (printf "\n%s.minReplicas is %d, but must be at most maxReplicas (%d): change one of them" $where $least (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $least 0) (ne $scaling.metric "backlog") -}}
{{- fail (printf "\n%s.minReplicas is 0, but metric: %s comes from the pods themselves, so nothing would wake the first one: use metric: backlog, or minReplicas 1" $where $scaling.metric) -}}
{{- end -}}
{{- if and (eq $least 0) (eq $scaling.kind "hpa") (semverCompare "<1.37.0-0" $root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "\n%s.minReplicas is 0, but an HPA wakes a Deployment from Kubernetes 1.37 on and this is %s: use kind: keda, or minReplicas 1" $where $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (eq $scaling.metric "cpu") (not (dig "requests" "cpu" "" $group.resources)) -}}
{{- fail (printf "\n%s.metric is cpu, but resources.requests.cpu, which it is a percentage of, is not set: set it, or use metric: backlog" $where) -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (eq $scaling.metric "timeToDrain") (not $scaling.keda.prometheus.serverAddress) -}}
{{- fail (printf "\n%s.metric is timeToDrain, but keda.prometheus.serverAddress is empty: name the Prometheus that scrapes the workers, or use metric: backlog" $where) -}}
{{- end -}}
{{- range $direction := list "scaleUp" "scaleDown" -}}
{{- if and (hasKey (get ($scaling.behavior | default dict) $direction | default dict) "tolerance") (semverCompare "<1.33.0-0" $root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "\n%s.behavior.%s.tolerance is set, but needs Kubernetes 1.33 and this is %s: leave it out" $where $direction $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
