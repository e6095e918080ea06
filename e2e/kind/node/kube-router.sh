#!/bin/bash
#
# Enforces NetworkPolicy on a node of an image that we built ourselves, as kindnetd does on the ordinary one (its way there
# needs NFT_QUEUE, which not every kernel has). It runs in a pod of kube-router.yaml: kube-router, of which only the firewall is
# on, since pod-network.sh routes and kube-proxy serves Services.
#
# Pods are told apart by sets of addresses (ipset), which follow a pod's labels about 0.3 s after they change. Connections
# that are open stay open: what is established is let through.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=kubeconfig.sh
source "${BASH_SOURCE[0]%/*}/kubeconfig.sh"

write_kubeconfig /tmp/kubeconfig

# 10.96.0.0/16 is the range that kind gives to Services.
exec kube-router --kubeconfig=/tmp/kubeconfig --run-firewall=true --run-router=false --run-service-proxy=false \
	--run-loadbalancer=false --service-cluster-ip-range=10.96.0.0/16 --hostname-override="$NODE_NAME"
