{{/* Names, labels and the image. What a group is: _groups.tpl. What is refused: _refusals.tpl. */}}

{{- define "longshore.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 36 | trimSuffix "-" -}}
{{- end -}}

{{/* 36 characters, so that a group of 20 and `-test` still fit into 63; a release may have dots, a Service may not. */}}
{{- define "longshore.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | replace "." "-" | trunc 36 | trimSuffix "-" -}}
{{- else if contains (include "longshore.name" .) .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "longshore.name" .) | replace "." "-" | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of all groups. */}}
{{- define "longshore.selector" -}}
app.kubernetes.io/name: {{ include "longshore.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* What selects the pods of one group: (list $ group). */}}
{{- define "longshore.groupSelector" -}}
{{ include "longshore.selector" (index . 0) }}
app.kubernetes.io/component: {{ (index . 1).name | quote }}
{{- end -}}

{{/* Labels of a resource of the whole release; what selects pods cannot be replaced by others, the rest can. */}}
{{- define "longshore.labels" -}}
{{- include "longshore.allLabels" (list . (include "longshore.selector" .)) -}}
{{- end -}}

{{/* Labels of a resource of one group: (list $ group). */}}
{{- define "longshore.groupLabels" -}}
{{- include "longshore.allLabels" (list (index . 0) (include "longshore.groupSelector" .)) -}}
{{- end -}}

{{- define "longshore.allLabels" -}}
{{- $root := index . 0 -}}
{{- $chart := dict "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $usual := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/managed-by" $root.Release.Service "app.kubernetes.io/part-of" "longshore" -}}
{{- merge (index . 1 | fromYaml) $root.Values.commonLabels $chart $usual | toYaml -}}
{{- end -}}

{{/* Labels of a group's pods: (list $ group). Without the chart's version, so that a new chart alone replaces no pod. */}}
{{- define "longshore.podLabels" -}}
{{- merge (include "longshore.groupSelector" . | fromYaml) (index . 1).podLabels (index . 0).Values.commonLabels (dict "app.kubernetes.io/part-of" "longshore") | toYaml -}}
{{- end -}}

{{- define "longshore.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* The fleet file: what is under `fleet`, listening where probes reach it. */}}
{{- define "longshore.fleetFile" -}}
{{- include "longshore.refuse" . -}}
{{- $server := mergeOverwrite (dict "host" "0.0.0.0") (.Values.fleet.server | default dict) -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.fleet) (dict "server" $server)) -}}
{{- end -}}

{{- define "longshore.port" -}}
{{- (.Values.fleet.server | default dict).port | default 8080 | int -}}
{{- end -}}

{{- define "longshore.region" -}}
{{- (.Values.fleet.aws | default dict).region | default .Values.aws.region -}}
{{- end -}}

{{- define "longshore.endpoint" -}}
{{- (.Values.fleet.aws | default dict).endpoint_url | default .Values.aws.endpointUrl -}}
{{- end -}}

{{/* Name of a ServiceAccount: (dict "account" its values "made" its name when the chart makes it). */}}
{{- define "longshore.serviceAccountName" -}}
{{- if .account.create -}}{{ .account.name | default .made }}{{- else -}}{{ .account.name | default "default" }}{{- end -}}
{{- end -}}

{{/* A ServiceAccount: (dict "root" $ "name" name "account" its values "labels" labels "annotations" more annotations). */}}
{{- define "longshore.serviceAccount" -}}
{{- $role := .account.irsaRoleArn | default "" -}}
{{- $annotations := merge (dict) (.annotations | default dict) (.account.annotations | default dict) -}}
{{- if $role }}{{ $_ := set $annotations "eks.amazonaws.com/role-arn" $role }}{{ end -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- .labels | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
# The worker does not talk to Kubernetes; IRSA and Pod Identity mount tokens of their own.
automountServiceAccountToken: false
{{- end -}}
