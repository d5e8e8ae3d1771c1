{{/* What the pods of workers, topology and tests have in common. */}}

{{/* Environment: (list $ group); the group is empty for the topology's Job. */}}
{{- define "longshore.env" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}
{{- $more := hasKey $group "env" | ternary $group.env $root.Values.env -}}
{{- $names := list -}}
{{- range $more }}{{ $names = append $names .name }}{{ end -}}
- name: LONGSHORE_CONFIG
  value: /etc/longshore/fleet.yaml
- name: LONGSHORE_STATE_DIR
  value: /var/lib/longshore
{{- if $group.hasOwnDrain }}
- name: LONGSHORE_DRAIN_SECONDS
  value: {{ $group.drainSeconds | int | quote }}
{{- end }}
{{- if not (has "AWS_STS_REGIONAL_ENDPOINTS" $names) }}
- name: AWS_STS_REGIONAL_ENDPOINTS
  value: regional
{{- end }}
{{- with $root.Values.aws.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with $root.Values.aws.endpointUrl }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with $more }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets and ConfigMaps as environment: (list $ group). */}}
{{- define "longshore.envFrom" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}
{{- with $root.Values.aws.credentialsSecret }}
- secretRef: {name: {{ . | quote }}}
{{- end }}
{{- with (hasKey $group "envFrom" | ternary $group.envFrom $root.Values.envFrom) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A container without ports and probes: (list $ group name arguments). */}}
{{- define "longshore.container" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}
name: {{ index . 2 }}
image: {{ include "longshore.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args:
  {{- toYaml (index . 3) | nindent 2 }}
env:
  {{- include "longshore.env" (list $root $group) | nindent 2 }}
{{- with include "longshore.envFrom" (list $root $group) | trim }}
envFrom:
  {{- . | nindent 2 }}
{{- end }}
{{- with $root.Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with ($group.resources | default $root.Values.resources) }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/longshore, readOnly: true}
  - {name: state, mountPath: /var/lib/longshore}
  - {name: tmp, mountPath: /tmp}
  {{- with (hasKey $group "volumeMounts" | ternary $group.volumeMounts $root.Values.volumeMounts) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* A pod's settings besides its containers: (list $ group account config), the names of its ServiceAccount and ConfigMap. */}}
{{- define "longshore.podSettings" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}
serviceAccountName: {{ index . 2 | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with (hasKey $group $key | ternary (get $group $key) (get $root.Values $key)) }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
volumes:
  - name: config
    configMap: {name: {{ index . 3 | quote }}}
  - name: state
    emptyDir: {sizeLimit: {{ $root.Values.stateSizeLimit | quote }}}
  - name: tmp
    emptyDir: {sizeLimit: {{ $root.Values.tmpSizeLimit | quote }}}
  {{- with (hasKey $group "volumes" | ternary $group.volumes $root.Values.volumes) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
