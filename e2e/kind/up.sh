#!/usr/bin/env bash
#
# Brings up a kind cluster and writes a kubeconfig for it:
#
#     e2e/kind/up.sh NAME KUBECONFIG [CONFIG]
#
# A cluster of that name that is healthy, and was made of the same node image and configuration, is used again; any other
# is made anew. When this returns 0, nodes, DNS and the default ServiceAccount are ready.
#
# Measured on two busy cores: 40 s with the node image there, 1.3 s when the cluster is there.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"
# shellcheck source-path=SCRIPTDIR source=host-settings.sh
source "$KIND/host-settings.sh"

# nodes [FILTER...]: the containers of the cluster, running or not.
nodes() { docker ps --all --quiet --filter "label=io.x-k8s.kind.cluster=$NAME" "$@"; }

# is_as_wanted: true if and only if the cluster is there, was made of $ORIGIN, and all that ready() asks for holds.
is_as_wanted() {
	[[ -e $CLUSTERS/$NAME && $(<"$CLUSTERS/$NAME") == "$ORIGIN" && -n $(nodes) ]] || return 1
	# The API server calls a node ready for most of a minute after it has stopped.
	[[ $(nodes) == "$(nodes --filter status=running)" ]] || return 1
	kind export kubeconfig --quiet --name "$NAME" --kubeconfig "$KUBECONFIG" 2>/dev/null || return 1
	ready 10s >/dev/null 2>&1
}

# ready TIMEOUT: waits for all that a test takes for granted. kind's own --wait covers the nodes only.
ready() {
	kubectl wait --for=condition=Ready node --all --timeout="$1" &&
		kubectl --namespace kube-system rollout status deployment/coredns --timeout="$1" &&
		kubectl --namespace kube-system rollout status daemonset --timeout="$1" &&
		kubectl --namespace default wait --for=create serviceaccount/default --timeout="$1"
}

create() {
	local began=$SECONDS
	if [[ -n $(nodes) ]]; then
		say "cluster $NAME is broken or made of something else: deleting it"
		kind delete cluster --quiet --name "$NAME" --kubeconfig "$KUBECONFIG"
	fi
	save_host_settings
	say "creating cluster $NAME (about 40 s)"
	# --retain: the nodes of a cluster that failed to start stay for explain() to look at, and for whoever wants to.
	{
		kind create cluster --retain --name "$NAME" --image "$IMAGE" --config "$CONFIG" \
			--kubeconfig "$KUBECONFIG" 2>&1 | without_advice >&2 &&
			ready 180s >/dev/null
	} || {
		explain
		fail "cluster $NAME did not come up; its nodes are left as they are (e2e/kind/README.md says how to look inside)"
	}
	echo "$ORIGIN" >"$CLUSTERS/$NAME"
	say "cluster $NAME is ready after $((SECONDS - began)) s"
}

# without_advice: what kind says, but for the beginning of each of its steps, which says the same as the end, and its farewell.
without_advice() { sed -u -e '/^ • /d' -e '/^cgroup v1 is deprecated/d' -e '/^Set kubectl context/,$d'; }

# explain: what most often tells why a cluster did not come up, without what a waiting node says every five seconds.
explain() {
	local node pods
	kubectl get nodes,pods --all-namespaces --output wide --request-timeout=5s >&2 || true
	for pods in daemonset/kindnet daemonset/kube-proxy deployment/coredns; do
		say "the last words of $pods:"
		kubectl --namespace kube-system logs "$pods" --tail=5 --request-timeout=5s >&2 || true
	done
	for node in $(nodes); do
		say "node $(docker inspect --format '{{.Name}} ({{.State.Status}})' "$node"), its console and the end of its journal:"
		docker logs --tail 5 "$node" >&2 || true
		docker exec "$node" journalctl --no-pager --lines=300 --unit=kubelet --unit=containerd |
			grep -vE 'event discarded|network not ready' | tail -n 15 >&2 || true
	done
}

main() {
	(($# == 2 || $# == 3)) || fail "usage: e2e/kind/up.sh NAME KUBECONFIG [CONFIG]"
	NAME=$1 CONFIG=${3:-$KIND/cluster.yaml}
	mkdir -p "$(dirname "$2")"
	# Absolute, and for every kubectl below.
	KUBECONFIG=$(cd "$(dirname "$2")" && pwd)/${2##*/}
	export KUBECONFIG
	use_tools apiserver cluster
	use_docker
	hold_lock "$CLUSTERS/lock" "a cluster"
	IMAGE=$("$KIND/node-image.sh")
	ORIGIN="$IMAGE $(sha256sum <"$CONFIG" | cut -c 1-12)"

	if is_as_wanted; then
		say "cluster $NAME is there and healthy"
	else
		create
	fi
}

main "$@"
