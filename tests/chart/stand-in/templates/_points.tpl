{{- define "containers.extra" -}}{{- end }}
{{- define "initcontainers.extra" -}}{{- end }}
{{- define "volumes.extra" -}}{{- end }}
