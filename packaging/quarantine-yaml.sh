#!/usr/bin/env bash
#
#     packaging/quarantine-yaml.sh DIRECTORY
#
# Writes the chart's quarantine policies, a file for each kind, for those who do not use Helm: the namespaced ones without a
# namespace, so that `kubectl apply -n` says where.
set -euo pipefail
CHECKOUT=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)

# render FLAVOUR HOW: the policies of one flavour, after the sentence that says how to apply them.
render() {
	cat <<-END
		# Cuts off pods whose Countersign identity is revoked. Generated from charts/countersign by \`make generate\`: do not edit it.
		# What it cuts and what it does not: docs/revocation.md.
		#
		#     $2
	END
	"$CHECKOUT/target/tools/helm" template countersign-system "$CHECKOUT/charts/countersign" \
		--namespace countersign-system --kube-version v1.37.2 --show-only templates/quarantine.yaml \
		--set-json "quarantine={\"$1\": true, \"namespaces\": [\"anywhere\"]}" |
		sed -e '/^# Source: /d' -e '/^  namespace: anywhere$/d' \
			-e '/^ *app.kubernetes.io\/\(managed-by: Helm\|instance: .*\)$/d' -e '/^ *helm.sh\/chart: /d'
}

mkdir -p "$1"
for flavour in networkPolicy istio linkerd; do
	render "$flavour" "kubectl apply -n NAMESPACE -f ${flavour,,}.yaml   # in every namespace with agents" >"$1/${flavour,,}.yaml"
done
render cilium "kubectl apply -f cilium.yaml   # once: it holds in all namespaces" >"$1/cilium.yaml"
