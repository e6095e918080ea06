#!/usr/bin/env bash
#
# Takes the CRDs of Istio, Cilium and cert-manager out of the projects' own Go modules, into the folder $1. Linkerd's module cannot be
# had from the Go proxy: what the tests use in its place is e2e/tests/access/linkerd.yaml.
# Istio's and Cilium's other code is in the folders istio and cilium, with versions in their go.mod: raise them together.
set -euo pipefail

ISTIO_API=istio.io/api@v1.31.4
# 37 MB for one file, but no smaller module of the project has it.
CILIUM=github.com/cilium/cilium@v1.20.2
CERT_MANAGER=github.com/cert-manager/cert-manager@v1.21.2

# source_of MODULE: the folder of a module.
source_of() {
	(cd / && GOWORK=off go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

cp "$(source_of $ISTIO_API)/kubernetes/customresourcedefinitions.gen.yaml" "$1/istio.yaml"
cilium=$(source_of $CILIUM)/pkg/k8s/apis/cilium.io/client/crds/v2
{
	cat "$cilium/ciliumnetworkpolicies.yaml"
	echo ---
	cat "$cilium/ciliumclusterwidenetworkpolicies.yaml"
} >"$1/cilium.yaml"
cp "$(source_of $CERT_MANAGER)/deploy/crds/cert-manager.io_certificaterequests.yaml" "$1/cert-manager.yaml"
