{{/*
The labels of every object. Selectors use only the first one and the component: they cannot be changed later.
*/}}
{{- define "countersign.labels" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "countersign.selector" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/component: operator
{{- end }}

{{- define "countersign.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/*
What the restricted Pod Security profile asks of a container, and a file system that nobody writes to.
*/}}
{{- define "countersign.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}

{{/*
What it asks of a pod. 65532 is the user of the image.
*/}}
{{- define "countersign.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/*
The operator as the API server knows it.
*/}}
{{- define "countersign.operator" -}}
system:serviceaccount:{{ .Release.Namespace }}:countersign
{{- end }}

{{/*
CEL: whether the key k is one of ours.
*/}}
{{- define "countersign.isOurs" -}}
k.startsWith('countersign.dev/') || k.contains('.countersign.dev/')
{{- end }}

{{/*
CEL variables of a policy on objects that may be made or changed: the keys of ours that the object has and had, and
whether they are what they were.
*/}}
{{- define "countersign.keyVariables" -}}
- name: labels
  expression: "has(object.metadata.labels) ? object.metadata.labels : {}"
- name: annotations
  expression: "has(object.metadata.annotations) ? object.metadata.annotations : {}"
- name: oldLabels
  expression: "oldObject != null && has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}"
- name: oldAnnotations
  expression: "oldObject != null && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"
- name: ourLabels
  expression: "variables.labels.filter(k, {{ include "countersign.isOurs" . }})"
- name: ourAnnotations
  expression: "variables.annotations.filter(k, {{ include "countersign.isOurs" . }})"
# Keys that were made, changed or taken off.
- name: touched
  expression: >-
    variables.ourLabels.filter(k, !(k in variables.oldLabels) || variables.oldLabels[k] != variables.labels[k])
    + variables.oldLabels.filter(k, ({{ include "countersign.isOurs" . }}) && !(k in variables.labels))
    + variables.ourAnnotations.filter(k, !(k in variables.oldAnnotations) || variables.oldAnnotations[k] != variables.annotations[k])
    + variables.oldAnnotations.filter(k, ({{ include "countersign.isOurs" . }}) && !(k in variables.annotations))
{{- end }}

{{/*
CEL variables of a policy on AgentIdentities: what is revoked and was, whether the request changes it, who the annotation
countersign.dev/revoked-by says did, and who it should say, each a list of one or none.
*/}}
{{- define "countersign.revocationVariables" -}}
- name: revocations
  expression: >-
    [object, oldObject].map(o, [
      o != null && has(o.spec.revoked) ? dyn([o.spec.revoked]) : dyn([]),
      o != null && has(o.spec.revokedCertificates) ? dyn(o.spec.revokedCertificates) : dyn([])])
- name: changesRevocation
  expression: "variables.revocations[0] != variables.revocations[1]"
- name: said
  expression: >-
    [object, oldObject].map(o, o != null && has(o.metadata.annotations) && 'countersign.dev/revoked-by' in o.metadata.annotations
      ? [o.metadata.annotations['countersign.dev/revoked-by']] : [])
- name: saidBy
  expression: "variables.said[0]"
- name: saidBefore
  expression: "variables.said[1]"
- name: by
  expression: >-
    !variables.changesRevocation ? variables.saidBefore
    : variables.revocations[0] == [dyn([]), dyn([])] ? [] : [request.userInfo.username]
{{- end }}

{{/*
CEL variables of a policy whose parameter is a part of the namespace's roster: whether that part speaks of the pod's
ServiceAccount, and the identity that the pod carries, as a list of one or none.
*/}}
{{- define "countersign.rosterVariables" -}}
- name: labels
  expression: "has(object.metadata.labels) ? object.metadata.labels : {}"
- name: annotations
  expression: "has(object.metadata.annotations) ? object.metadata.annotations : {}"
# A mirror pod has none; the API server has filled it in for all others.
- name: account
  expression: "has(object.spec.serviceAccountName) ? object.spec.serviceAccountName : ''"
- name: isSpokenOf
  expression: >-
    (!has(params.spec.from) || variables.account >= params.spec.from)
    && (!has(params.spec.to) || variables.account < params.spec.to)
- name: entries
  expression: "variables.isSpokenOf && variables.account in params.spec.accounts ? params.spec.accounts[variables.account] : []"
# The roster lists them in the order of precedence: the first that matches is the one.
- name: matching
  expression: >-
    variables.entries.filter(e, !has(e.selector) || e.selector.all(t,
      t.operator == 'In' ? t.key in variables.labels && variables.labels[t.key] in t.values
      : t.operator == 'NotIn' ? !(t.key in variables.labels) || !(variables.labels[t.key] in t.values)
      : t.operator == 'Exists' ? t.key in variables.labels
      : !(t.key in variables.labels)))
{{- end }}

{{/*
True where the cluster has MutatingAdmissionPolicy as admissionregistration.k8s.io/v1: Kubernetes 1.36 and later.
*/}}
{{- define "countersign.canStamp" -}}
{{- if or (semverCompare ">=1.36-0" .Capabilities.KubeVersion.Version) (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}true{{ end }}
{{- end }}

{{/*
The binding of a policy without a parameter, as the value policies.actions wants it: (list . "name").
*/}}
{{- define "countersign.binding" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "countersign.labels" $root | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: {{ toJson $root.Values.policies.actions }}
{{- end }}

{{/*
CEL: whether the labels of the identity's namespace are those that a selector, given by its path, asks for.
*/}}
{{- define "countersign.selectsNamespace" -}}
(!has({{ . }}.matchLabels) || {{ . }}.matchLabels.all(k, k in variables.namespaceLabels && variables.namespaceLabels[k] == {{ . }}.matchLabels[k]))
&& (!has({{ . }}.matchExpressions) || {{ . }}.matchExpressions.all(t,
  t.operator == 'In' ? t.key in variables.namespaceLabels && variables.namespaceLabels[t.key] in t.values
  : t.operator == 'NotIn' ? !(t.key in variables.namespaceLabels) || !(variables.namespaceLabels[t.key] in t.values)
  : t.operator == 'Exists' ? t.key in variables.namespaceLabels
  : !(t.key in variables.namespaceLabels)))
{{- end }}
