#!/usr/bin/env bash
#
# Prints manifests/install.yaml: the chart with its default values, for those who do not use Helm.
set -euo pipefail
CHECKOUT=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)

cat <<'END'
# Countersign without Helm. Generated from charts/countersign by `make generate`: do not edit it.
#
#     kubectl apply --server-side -f install.yaml
#
# To remove the operator and keep every AgentIdentity, delete the namespace countersign-system and the
# cluster-wide objects by name. `kubectl delete -f` of this file deletes the definitions too, and with
# them every AgentIdentity and every agent's Secret: delete the AgentIdentities first, while the
# operator runs, or the definitions wait for it (docs/revocation.md, "Deleting an identity").
apiVersion: v1
kind: Namespace
metadata:
  name: countersign-system
  labels:
    app.kubernetes.io/name: countersign
    pod-security.kubernetes.io/enforce: restricted
END
# The labels that say that Helm manages an object would be untrue here. --kube-version: `helm template` asks no
# cluster, and would take the version that Helm was built with.
"$CHECKOUT/target/tools/helm" template countersign-system "$CHECKOUT/charts/countersign" \
	--namespace countersign-system --kube-version v1.37.2 --skip-tests |
	sed -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^ *helm.sh\/chart: /d'
