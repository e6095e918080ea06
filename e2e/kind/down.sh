#!/usr/bin/env bash
#
# Deletes a kind cluster that up.sh made:
#
#     e2e/kind/down.sh NAME
#
# After the last one, puts back the settings of this machine that its nodes changed. Docker, the node image and the
# programs stay, so that the next cluster is quick.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"
# shellcheck source-path=SCRIPTDIR source=host-settings.sh
source "$KIND/host-settings.sh"

main() {
	local name=${1:?usage: e2e/kind/down.sh NAME} began=$SECONDS scratch
	use_tools kind
	use_docker
	hold_lock "$CLUSTERS/lock" "a cluster"
	# kind also removes its context from a kubeconfig; lead it away from the user's own.
	scratch=$(mktemp -d)
	kind delete cluster --quiet --name "$name" --kubeconfig "$scratch/kubeconfig"
	rm -rf "$scratch" "${CLUSTERS:?}/$name"
	say "cluster $name is gone after $((SECONDS - began)) s"
	[[ -n $(docker ps --all --quiet --filter label=io.x-k8s.kind.cluster) ]] || restore_host_settings
}

main "$@"
