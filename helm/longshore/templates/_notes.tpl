{{/* What `helm install` prints: the arithmetic behind the numbers, and what may not have been meant. */}}
{{- define "longshore.notes" -}}
{{ include "longshore.fullname" . }} consumes {{ keys (include "longshore.queues" . | fromJson) | len }} queue(s) with the image {{ include "longshore.image" . }}.
{{ $groups := include "longshore.groups" . | fromJson -}}
{{- range $group := $groups }}
{{ $scaling := $group.autoscaling -}}
Group {{ $group.name }} (Deployment {{ $group.fullname }})
  drain    {{ $group.drainSeconds }} s drain + {{ $group.preStopSleepSeconds }} s preStop + 5 s = {{ add $group.drainSeconds $group.preStopSleepSeconds 5 }} s; SIGKILL after {{ $group.graceSeconds }} s
{{- if eq $scaling.kind "none" }}
  pods     {{ int $group.replicas }}, fixed
{{- else }}
  pods     {{ int $scaling.minReplicas }} to {{ int $scaling.maxReplicas }}, by {{ ternary "an HPA" "KEDA" (eq $scaling.kind "hpa") }} on {{ $scaling.metric }}
{{- end }}
{{- range $group.queues }}
  {{ include "longshore.notesQueue" (list $scaling .) }}
{{- end }}
{{ end }}
{{- include "longshore.notesWarnings" (list $ $groups) }}
{{- if .Values.helmTest.enabled }}
Check it:  helm test {{ .Release.Name }} --namespace {{ .Release.Namespace }} --logs
{{- end }}
Watch it:  kubectl --namespace {{ .Release.Namespace }} logs --follow --selector app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/name={{ include "longshore.name" . }}
{{- end -}}

{{/* How a queue counts: (list autoscaling queue). */}}
{{- define "longshore.notesQueue" -}}
{{- $scaling := index . 0 -}}{{- $queue := index . 1 -}}
queue    {{ $queue.name }}, concurrency {{ int $queue.concurrency }}
{{- if eq $scaling.kind "none" -}}
{{- else if eq $scaling.metric "timeToDrain" -}}
: one pod for each {{ int $scaling.targetLatencySeconds }} s that one pod would need for the backlog
{{- else if eq $scaling.metric "cpu" -}}
: its backlog does not count
{{- else if $scaling.targetBacklog -}}
: one pod for each {{ int $queue.targetBacklog }} messages, as targetBacklog says
{{- else -}}
: one pod for each {{ int $queue.targetBacklog }} messages = {{ int $queue.concurrency }} * {{ int $scaling.targetLatencySeconds }} s target latency / {{ $scaling.handlerSeconds }} s handler
{{- end -}}
{{- end -}}

{{/* What works, but may not have been meant: (list $ groups). */}}
{{- define "longshore.notesWarnings" -}}
{{- $root := index . 0 -}}
{{- range $group := index . 1 -}}
{{- $scaling := $group.autoscaling -}}
{{- if and (ne $scaling.kind "none") (eq $scaling.metric "cpu") }}
WARNING: group {{ $group.name }} scales on CPU: workers that wait for a database or an API use none of it, so the queue grows and no pod comes; prefer metric: backlog.
{{- end }}
{{- if and (eq $scaling.kind "hpa") (ne $scaling.metric "cpu") }}
NOTE: group {{ $group.name }} needs a metrics adapter that serves the external metric {{ ternary $scaling.hpa.backlogMetric $scaling.hpa.timeToDrainMetric (eq $scaling.metric "backlog") }} for each queue; without it the number of pods stays as it is (helm/examples/metrics-adapter-rules.yaml).
{{- end }}
{{- if and (eq $scaling.kind "hpa") (eq (int $scaling.minReplicas) 0) }}
WARNING: group {{ $group.name }} may go down to no pod at all: the adapter must not take its metric from the workers, or nothing wakes the first one.
{{- end }}
{{- if and (eq $scaling.kind "none") (eq (int $group.replicas) 0) }}
WARNING: group {{ $group.name }} has no pods, and nothing will add one.
{{- end }}
{{- if and (eq $scaling.kind "none") (eq (int $group.replicas) 1) $group.podDisruptionBudget.enabled (eq (toString $group.podDisruptionBudget.minAvailable) "1") }}
WARNING: group {{ $group.name }} has one pod that podDisruptionBudget.minAvailable keeps: its node cannot be drained.
{{- end }}
{{- if gt (int $group.graceSeconds) 600 }}
WARNING: group {{ $group.name }} may take {{ $group.graceSeconds }} s to end, but cluster autoscalers usually wait no longer than 600 s: what is not done by then is received again after its visibility timeout.
{{- end }}
{{- end }}
{{- if not (include "longshore.region" $root) }}
NOTE: no AWS region is set (fleet.aws.region, aws.region): the pods' environment has to tell it.
{{- end }}
{{- if and (not $root.Values.podMonitor.enabled) (not $root.Values.serviceMonitor.enabled) }}
NOTE: nothing scrapes /metrics on port {{ include "longshore.port" $root }}: see podMonitor and serviceMonitor.
{{- end }}
{{ end -}}
