{{/*
The objects of a file that the chart shares with the kustomize base, moved to the release's namespace.
Expects a dict of `root` and `file`.
*/}}
{{- define "regcred.objects" -}}
{{- $root := .root -}}
{{- range $text := splitList "\n---\n" ($root.Files.Get .file) }}
{{- $object := fromYaml $text }}
{{- if eq $object.kind "ValidatingAdmissionPolicy" }}
{{- $object = fromYaml (replace "regcred-system" $root.Release.Namespace $text) }}
{{- range $variable := $object.spec.variables }}
{{- if eq $variable.name "names" }}
{{- $_ := set $variable "expression" (printf "['%s']" (join "', '" $root.Values.secretNames)) }}
{{- else if eq $variable.name "audiences" }}
{{- $_ := set $variable "expression" (printf "['%s']" (join "', '" $root.Values.admission.audiences)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey $object.metadata "namespace" }}
{{- $_ := set $object.metadata "namespace" $root.Release.Namespace }}
{{- end }}
{{- range $subject := $object.subjects }}
{{- $_ := set $subject "namespace" $root.Release.Namespace }}
{{- end }}
{{- if and (eq $object.kind "ClusterRole") (eq $object.metadata.name "regcred-secrets") }}
{{- $_ := set (first $object.rules) "resourceNames" $root.Values.secretNames }}
{{- end }}
{{- if eq $object.kind "ServiceAccount" }}
{{- with $root.Values.serviceAccount.annotations }}
{{- $_ := set $object.metadata "annotations" . }}
{{- end }}
{{- with $root.Values.serviceAccount.labels }}
{{- $_ := set $object.metadata "labels" (merge (deepCopy $object.metadata.labels) .) }}
{{- end }}
{{- end }}
{{- if eq $object.kind "MutatingAdmissionPolicyBinding" }}
{{- range $row := $object.spec.matchResources.namespaceSelector.matchExpressions }}
{{- if has "regcred-system" $row.values }}
{{- $_ := set $row "values" (append (without $row.values "regcred-system") $root.Release.Namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq $object.kind "PrometheusRule" }}
{{- range $group := $object.spec.groups }}
{{- range $rule := $group.rules }}
{{- $url := printf "%s%s" $root.Values.prometheus.runbookBase (trimPrefix "docs/" $rule.annotations.runbook_url) }}
{{- $_ := set $rule.annotations "runbook_url" $url }}
{{- end }}
{{- end }}
{{- end }}
---
{{ toYaml $object }}
{{ end }}
{{- end }}

{{/*
Whether the API server is to check the API's rules: "true" or "".
*/}}
{{- define "regcred.cel" -}}
{{- if eq (toString .Values.crds.cel) "auto" -}}
{{- if semverCompare ">=1.25.0-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- else if .Values.crds.cel }}true{{ end -}}
{{- end }}

{{- define "regcred.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}
