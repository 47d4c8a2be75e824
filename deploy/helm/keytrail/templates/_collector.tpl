{{/*
The collector's container, its init container and volumes: the same in its own DaemonSet and in Tetragon's pod. In flows
a dict with Values (ours) and Release. What a process is told stands in the ConfigMap but what only its pod knows.
*/}}

{{- define "keytrail.collector.endpoint" -}}
{{- if .Values.collector.otlp.endpoint -}}
{{ .Values.collector.otlp.endpoint }}
{{- else if .Values.firstLook.enabled -}}
http://{{ include "keytrail.fullname" . }}-first-look.{{ .Release.Namespace }}:4317
{{- end }}
{{- end }}

{{/* On loopback where the pod is in the node's network: the pages tell what runs there. */}}
{{- define "keytrail.collector.onHost" -}}
{{- if or .Values.collector.hostNetwork (eq .Values.collector.mode "sidecar") }}true{{ end }}
{{- end }}

{{- define "keytrail.collector.settings" -}}
{{- $collector := .Values.collector -}}
{{- $own := dict
  "cluster_ranges" .Values.clusterCIDRs
  "agent_address" (.Values.tetragon.address | default (printf "unix://%s/tetragon.sock" .Values.tetragon.socketDirectory))
  "http_address" (printf "%s:%d" (include "keytrail.collector.onHost" . | empty | ternary "" "127.0.0.1") (int $collector.http.port))
  "kubernetes" "always"
  "log_format" "json"
  "log_level" $collector.logLevel
  "otlp_records" $collector.otlp.records
  "peers" $collector.peers
  "output" (list (include "keytrail.collector.endpoint" . | empty | ternary "findings" "otlp"))
  "requests_in_flight" (int $collector.sending_queue.num_consumers)
  "rules" $collector.rules
  "spool_age_hours" (trimSuffix "h" $collector.retry_on_failure.max_elapsed_time | int)
  "spool_bytes" (int64 $collector.sending_queue.queue_size)
-}}
{{- if ne $collector.sending_queue.storage.type "memory" }}
{{- $_ := set $own "state_dir" "/var/lib/keytrail" }}
{{- end }}
{{- if .Values.tetragon.exportDirectory }}
{{- $_ := set $own "backfill_file" (printf "/var/log/tetragon-export/%s" .Values.tetragon.exportFilename) }}
{{- end }}
{{- if .Values.fingerprints.enabled }}
{{- $_ := set $own "fingerprints_file" "/etc/keytrail-fingerprints/fingerprints.json" }}
{{- end }}
{{- toYaml (merge $own $collector.settings) }}
{{- end }}

{{- define "keytrail.collector.container" -}}
{{- $collector := .Values.collector -}}
- name: keytrail
  image: {{ include "keytrail.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - collect
    {{- with $collector.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    {{- include "keytrail.collector.env" . | nindent 4 }}
    {{- with $collector.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: http, containerPort: {{ $collector.http.port }}}
  {{- /* Not ready without its agent, and restarted only for a thread that is dead or stuck. */}}
  livenessProbe:
    httpGet: {path: /healthz, port: http{{ if include "keytrail.collector.onHost" . }}, host: 127.0.0.1{{ end }}}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  {{- if eq $collector.mode "daemonset" }}
  readinessProbe:
    httpGet: {path: /readyz, port: http{{ if include "keytrail.collector.onHost" . }}, host: 127.0.0.1{{ end }}}
    periodSeconds: 10
    timeoutSeconds: 5
  {{- end }}
  resources: {{- toYaml $collector.resources | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  securityContext:
    {{- /* Group 0 opens the agent's socket: root:root, mode 0660. */}}
    runAsUser: 65532
    runAsGroup: 0
    {{- include "keytrail.containerSecurity" . | nindent 4 }}
    {{- with $collector.seLinuxOptions }}
    seLinuxOptions: {{- toYaml . | nindent 6 }}
    {{- end }}
  volumeMounts: {{- include "keytrail.collector.mounts" . | nindent 4 }}
{{- end }}

{{- define "keytrail.collector.env" -}}
{{- $otlp := .Values.collector.otlp -}}
{{- $endpoint := include "keytrail.collector.endpoint" . -}}
- {name: KEYTRAIL_SETTINGS, value: /etc/keytrail/settings.yaml}
- {name: KEYTRAIL_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: KEYTRAIL_AGENT_METRICS_ADDRESS, value: {{ .Values.tetragon.metricsAddress | default "$(HOST_IP):2112" | quote }}}
{{- if $endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ $endpoint | quote }}}
{{- with $otlp.protocol }}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ . }}}
{{- end }}
- {name: OTEL_EXPORTER_OTLP_COMPRESSION, value: {{ $otlp.compression }}}
- {name: OTEL_EXPORTER_OTLP_TIMEOUT, value: {{ trimSuffix "s" $otlp.timeout | int | mul 1000 | quote }}}
- {name: OTEL_METRICS_EXPORTER, value: {{ ternary "otlp" "none" $otlp.metrics }}}
{{- if $otlp.headersSecret.name }}
- {name: KEYTRAIL_OTLP_HEADERS_FILE, value: /etc/keytrail-otlp/headers}
{{- end }}
{{- if $otlp.tls.secretName }}
- {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /etc/keytrail-tls/ca.crt}
{{- if $otlp.tls.clientCertificate }}
- {name: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, value: /etc/keytrail-tls/tls.crt}
- {name: OTEL_EXPORTER_OTLP_CLIENT_KEY, value: /etc/keytrail-tls/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- with include "keytrail.collector.resource" . }}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "keytrail.collector.resource" -}}
{{- $attributes := list -}}
{{- with .Values.clusterName }}
{{- $attributes = append $attributes (printf "k8s.cluster.name=%s" (. | urlquery | replace "+" "%20")) }}
{{- end }}
{{- range $name, $value := .Values.collector.otlp.resourceAttributes }}
{{- $attributes = append $attributes (printf "%s=%s" $name ($value | urlquery | replace "+" "%20")) }}
{{- end }}
{{- join "," $attributes }}
{{- end }}

{{- define "keytrail.collector.mounts" -}}
- {name: keytrail-settings, mountPath: /etc/keytrail, readOnly: true}
{{- if not .Values.tetragon.address }}
- {name: {{ .socketVolume | default "keytrail-agent" }}, mountPath: {{ .Values.tetragon.socketDirectory }}, readOnly: true}
{{- end }}
{{- if ne .Values.collector.sending_queue.storage.type "memory" }}
- {name: keytrail-state, mountPath: /var/lib/keytrail}
{{- end }}
{{- if .Values.tetragon.exportDirectory }}
- {name: keytrail-export, mountPath: /var/log/tetragon-export, readOnly: true}
{{- end }}
{{- if .Values.collector.otlp.headersSecret.name }}
- {name: keytrail-headers, mountPath: /etc/keytrail-otlp, readOnly: true}
{{- end }}
{{- if .Values.collector.otlp.tls.secretName }}
- {name: keytrail-tls, mountPath: /etc/keytrail-tls, readOnly: true}
{{- end }}
{{- if .Values.fingerprints.enabled }}
- {name: keytrail-fingerprints, mountPath: /etc/keytrail-fingerprints, readOnly: true}
{{- end }}
{{- with .Values.collector.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "keytrail.collector.volumes" -}}
{{- $collector := .Values.collector -}}
- {name: keytrail-settings, configMap: {name: {{ include "keytrail.collector.fullname" . }}}}
{{- if not (or .Values.tetragon.address .socketVolume) }}
{{- /* The folder, not the socket: each start of the agent makes another one. */}}
- {name: keytrail-agent, hostPath: {path: {{ .Values.tetragon.socketDirectory }}, type: DirectoryOrCreate}}
{{- end }}
{{- with $collector.sending_queue.storage }}
{{- if eq .type "hostPath" }}
- {name: keytrail-state, hostPath: {path: {{ .path }}, type: DirectoryOrCreate}}
{{- else if eq .type "emptyDir" }}
{{- /* Room for the queue, and for what is set aside beside it. */}}
- {name: keytrail-state, emptyDir: {sizeLimit: {{ $collector.sending_queue.queue_size | int64 | mul 2 }}}}
{{- end }}
{{- end }}
{{- with .Values.tetragon.exportDirectory }}
- {name: keytrail-export, hostPath: {path: {{ . }}, type: DirectoryOrCreate}}
{{- end }}
{{- with $collector.otlp.headersSecret }}
{{- if .name }}
- {name: keytrail-headers, secret: {secretName: {{ .name }}, defaultMode: 0440, items: [{key: {{ .key }}, path: headers}]}}
{{- end }}
{{- end }}
{{- with $collector.otlp.tls.secretName }}
- {name: keytrail-tls, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- if .Values.fingerprints.enabled }}
{{- /* The operator makes it, perhaps later. */}}
- {name: keytrail-fingerprints, secret: {secretName: keytrail-fingerprints, defaultMode: 0440, optional: true}}
{{- end }}
{{- with $collector.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A hostPath belongs to root. CHOWN alone gives it away once; the second time there is nothing to do. */}}
{{- define "keytrail.collector.initContainer" -}}
{{- if eq .Values.collector.sending_queue.storage.type "hostPath" -}}
- name: keytrail-own-state
  image: {{ include "keytrail.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [/opt/keytrail/bin/python, -I, -c]
  args:
    - |
      import os, sys
      folder = sys.argv[1]
      if os.stat(folder).st_uid != 65532:
          os.chmod(folder, 0o700)
          os.chown(folder, 65532, 0)
    - /var/lib/keytrail
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 64Mi}
  securityContext:
    runAsUser: 0
    runAsGroup: 0
    runAsNonRoot: false
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL], add: [CHOWN]}
    seccompProfile: {type: RuntimeDefault}
    {{- with .Values.collector.seLinuxOptions }}
    seLinuxOptions: {{- toYaml . | nindent 6 }}
    {{- end }}
  volumeMounts:
    - {name: keytrail-state, mountPath: /var/lib/keytrail}
{{- end }}
{{- end }}
