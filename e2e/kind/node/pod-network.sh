#!/bin/bash
#
# The pod network of a node image that we built ourselves: what kindnetd does, which is published only as an image. It
# runs on every node in a pod of default-cni.yaml, and keeps three things true there:
#
#   - pods of this node get addresses of this node's range (a CNI configuration);
#   - the ranges of the other nodes are reached through those nodes (a route each; kind's nodes share one network);
#   - what leaves the pod subnet goes out under the node's address (one masquerade rule).
set -euo pipefail

CONFLIST=/etc/cni/net.d/10-pod-network.conflist
ACCOUNT=/var/run/secrets/kubernetes.io/serviceaccount

# Straight to the API server: the `kubernetes` Service is reached only once this and kube-proxy have done their work.
write_kubeconfig() {
	export KUBECONFIG=/tmp/kubeconfig
	cat >"$KUBECONFIG" <<-END
		apiVersion: v1
		kind: Config
		clusters: [{name: here, cluster: {server: "https://$CONTROL_PLANE_ENDPOINT", certificate-authority: $ACCOUNT/ca.crt}}]
		users: [{name: me, user: {tokenFile: $ACCOUNT/token}}]
		contexts: [{name: me, context: {cluster: here, user: me}}]
		current-context: me
	END
}

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

masquerade() {
	local rule=(POSTROUTING -s "$POD_SUBNET" ! -d "$POD_SUBNET" -j MASQUERADE)
	iptables -w -t nat -C "${rule[@]}" 2>/dev/null || iptables -w -t nat -A "${rule[@]}"
}

main() {
	local nodes name range address
	write_kubeconfig
	while true; do
		masquerade
		if nodes=$(list_nodes); then
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
