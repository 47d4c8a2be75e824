{{/* What no schema can say: values that are each right and together cannot work. */}}
{{- define "keytrail.validate" -}}
{{- $collector := .Values.collector -}}
{{- if and .Values.tetragon.address (not (include "keytrail.collector.onHost" .)) (regexMatch "^(localhost|127\\.|\\[?::1)" .Values.tetragon.address) }}
{{- fail (printf "tetragon.address %q is the node's loopback, which a pod of its own network cannot reach: set collector.hostNetwork=true" .Values.tetragon.address) }}
{{- end }}
{{- if and (eq $collector.mode "sidecar") $collector.hostNetwork }}
{{- fail "collector.hostNetwork is for collector.mode=daemonset: a sidecar has the network of Tetragon's pod" }}
{{- end }}
{{- if and $collector.otlp.tls.clientCertificate (not $collector.otlp.tls.secretName) }}
{{- fail "collector.otlp.tls.clientCertificate needs collector.otlp.tls.secretName" }}
{{- end }}
{{- if and (include "keytrail.collector.endpoint" .) (hasPrefix "http://" (include "keytrail.collector.endpoint" .)) $collector.otlp.tls.secretName }}
{{- fail "collector.otlp.tls.secretName is for an https:// endpoint" }}
{{- end }}
{{- end }}
