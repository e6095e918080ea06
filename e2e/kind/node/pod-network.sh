#!/bin/bash
#
# The pod network of a node image that we built ourselves: what kindnetd does, which is published only as an image. It
# runs on every node in a pod of default-cni.yaml, and keeps these things true there:
#
#   - pods of this node get addresses of this node's range (a CNI configuration);
#   - the ranges of the other nodes are reached through those nodes (a route each; kind's nodes share one network);
#   - what leaves the pod subnet goes out under the node's address (one masquerade rule);
#   - what is meant for a Service or a pod that is not there ends here. It would otherwise follow the default route
#     out of the machine, where an address such as 10.96.0.7 may well be somebody's.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=kubeconfig.sh
source "${BASH_SOURCE[0]%/*}/kubeconfig.sh"

CONFLIST=/etc/cni/net.d/10-pod-network.conflist
export KUBECONFIG=/tmp/kubeconfig

list_nodes() {
	kubectl get nodes --request-timeout=5s -o jsonpath='{range .items[*]}{.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'
}

# The kubelet reads this file whenever it changes, so it appears by a rename, and is written once.
write_conflist() {
	[[ -e $CONFLIST && $(<"$CONFLIST") == *"\"$1\""* ]] && return
	cat >"$CONFLIST.new" <<-END
		{
		  "cniVersion": "0.4.0",
		  "name": "pod-network",
		  "plugins": [
		    {
		      "type": "ptp",
		      "ipMasq": false,
		      "mtu": 1500,
		      "ipam": {
		        "type": "host-local",
		        "dataDir": "/run/cni-ipam-state",
		        "routes": [{"dst": "0.0.0.0/0"}],
		        "ranges": [[{"subnet": "$1"}]]
		      }
		    },
		    {"type": "portmap", "capabilities": {"portMappings": true}}
		  ]
		}
	END
	mv "$CONFLIST.new" "$CONFLIST"
	echo "pods of $NODE_NAME get addresses of $1"
}

# ensure_rule TABLE CHAIN RULE...: appends it, if it is not there.
ensure_rule() {
	local table=$1 chain=$2
	shift 2
	iptables -w -t "$table" -C "$chain" "$@" 2>/dev/null || iptables -w -t "$table" -A "$chain" "$@"
}

masquerade() {
	ensure_rule nat POSTROUTING -s "$POD_SUBNET" ! -d "$POD_SUBNET" -j MASQUERADE
}

# keep_inside SERVICES: these tables come after kube-proxy's translation, so whatever still has a Service's address here has
# met no rule for it. What pods send is caught in the table before `filter`, where kube-router accepts, ahead of every other
# rule, what its policies let through; it is not answered, and is sent again when kube-proxy may know the Service. The route is the least specific one of the pod subnet: it is met only by a range that no node has.
keep_inside() {
	ensure_rule mangle FORWARD -d "$1" -j DROP
	ensure_rule filter OUTPUT -d "$1" -j REJECT
	ip route replace unreachable "$POD_SUBNET"
}

list_service_ranges() {
	kubectl get servicecidrs --request-timeout=5s -o jsonpath='{range .items[*]}{.spec.cidrs[0]}{"\n"}{end}'
}

main() {
	local nodes services name range address
	write_kubeconfig "$KUBECONFIG"
	while true; do
		masquerade
		if services=$(list_service_ranges) && nodes=$(list_nodes); then
			for range in $services; do keep_inside "$range"; done
			while read -r name range address; do
				[[ -n $address ]] || continue # a node that has just joined
				if [[ $name == "$NODE_NAME" ]]; then
					write_conflist "$range"
				else
					ip route replace "$range" via "$address"
				fi
			done <<<"$nodes"
		fi
		sleep 5 # a node that joins waits so long for its first address; nothing else depends on it
	done
}

main
