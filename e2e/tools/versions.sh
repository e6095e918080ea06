# shellcheck shell=bash disable=SC2034 # sourced: whoever sources it uses these
#
# Which version of each program is built. Kubernetes and etcd stand in go.mod, since Go resolves them together; the rest
# are programs that bring their own go.mod, and stand here.
#
# coredns must be the version that `kubeadm config images list` names: e2e/kind/node-image.sh checks it.

TOOLS_GO_MOD=${BASH_SOURCE[0]%/*}/go.mod

# version_in_go_mod MODULE: the version that go.mod requires of it.
version_in_go_mod() {
	local module version
	while read -r module version _; do
		[[ $module == "$1" && $version == v* ]] && { echo "$version"; return; }
	done <"$TOOLS_GO_MOD"
	echo "$TOOLS_GO_MOD requires no $1" >&2
	return 1
}

KUBERNETES_VERSION=$(version_in_go_mod k8s.io/kubernetes)
CONTAINERD_VERSION=v2.4.2
COREDNS_VERSION=v1.14.6
CRICTL_VERSION=v1.37.0
HELM_VERSION=v3.22.0
KIND_VERSION=v0.33.0
KUBE_ROUTER_VERSION=v2.1.0
ZLINT_VERSION=v3.7.3

# The day of Kubernetes' release, for its version stamp: with today's date, the same sources would build differently
# every day.
KUBERNETES_RELEASED=2026-10-27T12:01:04Z
