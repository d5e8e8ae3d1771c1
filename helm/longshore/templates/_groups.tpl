{{/*
The groups of queues as JSON, by name. Each has name, fullname, queues (name, key, concurrency, targetBacklog), drainSeconds, graceSeconds,
hasOwnDrain, serviceAccountName, hasOwnServiceAccount, and every value that a group may override, merged.
*/}}
{{- define "longshore.groups" -}}
{{- include "longshore.refuse" . -}}
{{- $groups := dict -}}
{{- range $name, $own := (include "longshore.ownGroups" . | fromJson) -}}
{{- $_ := set $groups $name (include "longshore.group" (list $ $name $own) | fromJson) -}}
{{- end -}}
{{- toJson $groups -}}
{{- end -}}

{{/* The groups as the values have them, or the one with all queues. */}}
{{- define "longshore.ownGroups" -}}
{{- $queues := include "longshore.queues" . | fromJson -}}
{{- .Values.groups | default (dict "default" (dict "queues" (keys $queues | sortAlpha))) | toJson -}}
{{- end -}}

{{- define "longshore.group" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $own := index . 2 -}}
{{- $values := $root.Values -}}
{{- $group := pick $values "replicas" "autoscaling" "podDisruptionBudget" "terminationGracePeriodSeconds" "preStopSleepSeconds" "resources"
      "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" "podAnnotations" "podLabels" | deepCopy -}}
{{- $group = mergeOverwrite $group (omit $own "env" "envFrom" "volumes" "volumeMounts" "serviceAccount" "queues") -}}
{{- $replaced := list -}}
{{- range $own.env }}{{ $replaced = append $replaced .name }}{{ end -}}
{{- $env := list -}}
{{- range $values.env }}{{ if not (has .name $replaced) }}{{ $env = append $env . }}{{ end }}{{ end -}}
{{- $_ := set $group "env" (concat $env ($own.env | default list)) -}}
{{- range list "envFrom" "volumes" "volumeMounts" -}}
{{- $_ := set $group . (concat (index $values . | default list) (index $own . | default list)) -}}
{{- end -}}
{{- $fullname := printf "%s-%s" (include "longshore.fullname" $root) $name -}}
{{- $_ := set $group "name" $name -}}
{{- $_ := set $group "fullname" $fullname -}}
{{- $all := include "longshore.queues" $root | fromJson -}}
{{- $queues := list -}}
{{- range $own.queues -}}
{{- $queue := index $all . -}}
{{- $queues = append $queues (set $queue "targetBacklog" (include "longshore.targetBacklog" (list $group.autoscaling $queue.concurrency) | int)) -}}
{{- end -}}
{{- $_ := set $group "queues" $queues -}}
{{- $drain := $own.drainSeconds | default $values.fleet.drain_seconds | default 25 | int -}}
{{- $_ := set $group "drainSeconds" $drain -}}
{{- $_ := set $group "hasOwnDrain" (hasKey $own "drainSeconds") -}}
{{- $_ := set $group "graceSeconds" ($group.terminationGracePeriodSeconds | default (add $drain $group.preStopSleepSeconds 5) | int) -}}
{{- $hasOwn := hasKey $own "serviceAccount" -}}
{{- $_ := set $group "hasOwnServiceAccount" $hasOwn -}}
{{- $account := mergeOverwrite (dict "create" true) ($hasOwn | ternary $own.serviceAccount $values.serviceAccount | deepCopy) -}}
{{- $made := $hasOwn | ternary $fullname (include "longshore.fullname" $root) -}}
{{- $_ := set $group "serviceAccount" $account -}}
{{- $_ := set $group "serviceAccountName" (include "longshore.serviceAccountName" (dict "account" $account "made" $made)) -}}
{{- toJson $group -}}
{{- end -}}

{{/* The queues of the fleet as JSON, by bare name: the last part of a URL or an ARN. */}}
{{- define "longshore.queues" -}}
{{- $fleet := .Values.fleet -}}
{{- $queues := dict -}}
{{- range $key, $queue := $fleet.queues -}}
{{- $name := regexReplaceAll "^.*[:/]" $key "" -}}
{{- $concurrency := ($queue | default dict).concurrency | default ($fleet.defaults | default dict).concurrency | default 10 -}}
{{- if kindIs "map" $concurrency -}}{{- $concurrency = $concurrency.max -}}{{- end -}}
{{- $concurrency = min ($concurrency | int) ($fleet.max_running_handlers | default $concurrency | int) -}}
{{- $_ := set $queues $name (dict "name" $name "key" $key "concurrency" $concurrency) -}}
{{- end -}}
{{- toJson $queues -}}
{{- end -}}

{{/* Messages per pod at which one waits as long as it may: (list autoscaling concurrency). */}}
{{- define "longshore.targetBacklog" -}}
{{- $scaling := index . 0 -}}
{{- $scaling.targetBacklog | default (max 1 (ceil (divf (mulf (index . 1) $scaling.targetLatencySeconds) $scaling.handlerSeconds))) | int -}}
{{- end -}}

{{/* The URL of a queue, for KEDA: (list $ queue). */}}
{{- define "longshore.queueUrl" -}}
{{- $root := index . 0 -}}{{- $queue := index . 1 -}}
{{- $endpoint := include "longshore.endpoint" $root -}}
{{- $arn := splitList ":" $queue.key -}}
{{- $account := $root.Values.aws.accountId -}}
{{- if hasPrefix "arn:" $queue.key }}{{ $account = index $arn 4 }}{{ end -}}
{{- if contains "://" $queue.key -}}
{{- $queue.key -}}
{{- else if not $account -}}
{{- fail (printf "\nautoscaling.kind is keda, but the account of the queue %q is not known: set aws.accountId, or name the queue by its ARN or URL in fleet.queues" $queue.name) -}}
{{- else if $endpoint -}}
{{- printf "%s/%s/%s" (trimSuffix "/" $endpoint) $account $queue.name -}}
{{- else -}}
{{- $region := include "longshore.queueRegion" . -}}
{{- printf "https://sqs.%s.amazonaws.com%s/%s/%s" $region (ternary ".cn" "" (hasPrefix "cn-" $region)) $account $queue.name -}}
{{- end -}}
{{- end -}}

{{/* The region of a queue, for KEDA: (list $ queue). */}}
{{- define "longshore.queueRegion" -}}
{{- $root := index . 0 -}}{{- $queue := index . 1 -}}
{{- $region := include "longshore.region" $root -}}
{{- if hasPrefix "arn:" $queue.key -}}
{{- $region = index (splitList ":" $queue.key) 3 -}}
{{- else if and (not $region) (contains "://" $queue.key) -}}
{{- $region = regexFind "[a-z]{2}(-[a-z]+)+-[0-9]" $queue.key -}}
{{- end -}}
{{- if not $region -}}
{{- fail (printf "\nautoscaling.kind is keda, but the region of the queue %q is not known: set fleet.aws.region" $queue.name) -}}
{{- end -}}
{{- $region -}}
{{- end -}}

{{/* PromQL of the messages of a queue, visible and in flight; every pod reports the same queue, so the maximum counts. */}}
{{- define "longshore.backlogQuery" -}}
sum by (queue) (max by (queue, state) (longshore_queue_messages{namespace={{ (index . 0).Release.Namespace | quote }},queue={{ (index . 1).name | quote }},state=~"visible|in_flight"}))
{{- end -}}

{{/* PromQL of the seconds that one pod would need for them, as measured; before anything is measured, as the values say: (list $ group queue). */}}
{{- define "longshore.timeToDrainQuery" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}{{- $queue := index . 2 -}}
{{- $of := printf "namespace=%q,queue=%q" $root.Release.Namespace $queue.name -}}
{{- $backlog := include "longshore.backlogQuery" (list $root $queue) -}}
{{- $backlog }} * (sum by (queue) (rate(longshore_handler_seconds_sum{{ printf "{%s}" $of }}[10m])) / (sum by (queue) (rate(longshore_handler_seconds_count{{ printf "{%s}" $of }}[10m])) > 0)) / max by (queue) (longshore_slots{{ printf "{%s,state=\"size\"}" $of }}) or {{ $backlog }} * {{ $group.autoscaling.handlerSeconds }} / {{ $queue.concurrency }}
{{- end -}}
