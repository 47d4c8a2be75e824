{{/* What no schema can say: values that are each right and together cannot work. */}}
{{- define "keytrail.validate" -}}
{{- $collector := .Values.collector -}}
{{- if and .Values.tetragon.address (not (include "keytrail.collector.onHost" .)) (regexMatch "^(localhost|127\\.|\\[?::1)" .Values.tetragon.address) }}
{{- fail (printf "tetragon.address %q is the node's loopback, which a pod of its own network cannot reach: set collector.hostNetwork=true" .Values.tetragon.address) }}
{{- end }}
{{- if and (eq $collector.mode "sidecar") $collector.hostNetwork }}
{{- fail "collector.hostNetwork is for collector.mode=daemonset: a sidecar has the network of Tetragon's pod" }}
{{- end }}
{{- $loopback := regexMatch "^(https?://)?(localhost(:|/|$)|127[.]|[[]?::1)" $collector.otlp.endpoint }}
{{- /* A receiver may be injected beside the collector, and then is in its pod. */}}
{{- if and $loopback (not (include "keytrail.collector.onHost" .)) (not (hasKey $collector.podAnnotations "sidecar.opentelemetry.io/inject")) }}
{{- fail (printf "collector.otlp.endpoint %q is the collector's own pod, where nothing takes records: name a Service, or for a receiver on each node set collector.hostNetwork=true" $collector.otlp.endpoint) }}
{{- end }}
{{- if and $collector.otlp.tls.clientCertificate (not $collector.otlp.tls.secretName) }}
{{- fail "collector.otlp.tls.clientCertificate needs collector.otlp.tls.secretName" }}
{{- end }}
{{- if and (include "keytrail.collector.endpoint" .) (hasPrefix "http://" (include "keytrail.collector.endpoint" .)) $collector.otlp.tls.secretName }}
{{- fail "collector.otlp.tls.secretName is for an https:// endpoint" }}
{{- end }}
{{- end }}
