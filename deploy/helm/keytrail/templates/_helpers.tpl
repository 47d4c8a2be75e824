{{/*
Names and labels. Every template takes the chart's root, or a dict with Values and Release: the container of the
collector is rendered in the scope of Tetragon's chart, too.
*/}}

{{/* Below the umbrella chart `global.keytrail` outranks what is set here: Tetragon's pod sees nothing else of ours. */}}
{{- define "keytrail.global" -}}
{{- $_ := set . "Values" (mergeOverwrite (deepCopy .Values) (dig "keytrail" (dict) (.Values.global | default (dict)))) }}
{{- end }}

{{- define "keytrail.name" -}}
{{- include "keytrail.global" . -}}
{{ .Values.nameOverride | default "keytrail" | trunc 48 | trimSuffix "-" }}
{{- end }}

{{- define "keytrail.fullname" -}}
{{- $name := include "keytrail.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 48 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The version that is in the image. Said here as .Chart is another one's in a sidecar; a test compares. */}}
{{- define "keytrail.version" -}}0.1.0{{- end }}

{{- define "keytrail.labels" -}}
{{ include "keytrail.selectorLabels" . }}
app.kubernetes.io/version: {{ include "keytrail.version" . | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: keytrail
helm.sh/chart: keytrail-{{ include "keytrail.version" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "keytrail.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keytrail.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "keytrail.collector.fullname" -}}
{{ include "keytrail.fullname" . }}-collector
{{- end }}

{{- define "keytrail.operator.fullname" -}}
{{ include "keytrail.fullname" . }}-operator
{{- end }}

{{/* In a sidecar the token is that of Tetragon's pod. */}}
{{- define "keytrail.collector.serviceAccountName" -}}
{{- include "keytrail.global" . -}}
{{- if .Values.collector.serviceAccount.name -}}
{{ .Values.collector.serviceAccount.name }}
{{- else if eq .Values.collector.mode "sidecar" -}}
{{ .Values.tetragon.release }}
{{- else if .Values.collector.serviceAccount.create -}}
{{ include "keytrail.collector.fullname" . }}
{{- else -}}
default
{{- end }}
{{- end }}

{{- define "keytrail.collector.serviceAccountNamespace" -}}
{{- include "keytrail.global" . -}}
{{ eq .Values.collector.mode "sidecar" | ternary (.Values.tetragon.namespace | default .Release.Namespace) .Release.Namespace }}
{{- end }}

{{- define "keytrail.operator.serviceAccountName" -}}
{{- if .Values.operator.serviceAccount.name -}}
{{ .Values.operator.serviceAccount.name }}
{{- else if .Values.operator.serviceAccount.create -}}
{{ include "keytrail.operator.fullname" . }}
{{- else -}}
default
{{- end }}
{{- end }}

{{- define "keytrail.image" -}}
{{- $image := .Values.image -}}
{{- $name := empty $image.registry | ternary $image.repository (printf "%s/%s" $image.registry $image.repository) -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name ($image.tag | default (include "keytrail.version" .)) }}
{{- end }}
{{- end }}

{{/* Nobody may gain anything: `restricted` of the Pod Security Standards, and a root file system that nobody writes. */}}
{{- define "keytrail.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}
