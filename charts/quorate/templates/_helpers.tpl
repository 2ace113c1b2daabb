{{/* The name of all objects of the release. */}}
{{- define "quorate.fullname" -}}
{{- if eq .Release.Name "quorate" -}}
quorate-operator
{{- else -}}
{{ printf "%s-quorate-operator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "quorate.selector" -}}
app.kubernetes.io/name: quorate-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "quorate.labels" -}}
{{ include "quorate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "quorate.account" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "quorate.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* An image by its values and a default tag: (list IMAGE TAG). */}}
{{- define "quorate.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end -}}

{{/* What the operator does in each namespace that it watches. */}}
{{- define "quorate.rules" -}}
- apiGroups: [quorate.dev]
  resources: [quorateclusters, quoratemembers, quoratebackups]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [quorate.dev]
  resources:
    - quorateclusters/status
    - quoratemembers/status
    - quoratebackups/status
    - quorateclusters/finalizers
    - quoratemembers/finalizers
    - quoratebackups/finalizers
    - quorateclusters/scale
  verbs: [get, update, patch]
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims, services, secrets, configmaps]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors, podmonitors, prometheusrules]
  verbs: [get, list, watch, create, update, patch, delete]
{{- end -}}
