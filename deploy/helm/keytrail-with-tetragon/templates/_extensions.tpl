{{/*
Tetragon's chart (1.6 and newer) includes these templates and leaves them empty. They run in its scope: ours is what
Chart.yaml brings into `global`. Each says nothing when the collector is not to be there.
*/}}

{{- define "keytrail.here" -}}
{{- $global := .Values.global.keytrail -}}
{{- if and $global.collector.enabled (eq $global.collector.mode "sidecar") }}true{{ end }}
{{- end }}

{{/* Our values as our own templates want them. The agent's socket is in a volume that Tetragon's pod has already. */}}
{{- define "keytrail.scope" -}}
{{- $defaults := dict "nameOverride" "" "fullnameOverride" "" "clusterName" "" "commonLabels" (dict) -}}
{{- toYaml (dict "Values" (merge (deepCopy .Values.global.keytrail) $defaults) "Release" (dict "Name" .Release.Name "Namespace" .Release.Namespace "Service" .Release.Service) "socketVolume" "tetragon-run") }}
{{- end }}

{{- define "containers.extra" -}}
{{- if include "keytrail.here" . }}
{{ include "keytrail.collector.container" (include "keytrail.scope" . | fromYaml) }}
{{- end }}
{{- end }}

{{- define "initcontainers.extra" -}}
{{- if include "keytrail.here" . }}
{{ include "keytrail.collector.initContainer" (include "keytrail.scope" . | fromYaml) }}
{{- end }}
{{- end }}

{{- define "volumes.extra" -}}
{{- if include "keytrail.here" . }}
{{ include "keytrail.collector.volumes" (include "keytrail.scope" . | fromYaml) }}
{{- end }}
{{- end }}
