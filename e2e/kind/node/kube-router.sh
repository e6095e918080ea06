#!/bin/bash
#
# Enforces NetworkPolicy on a node of an image that we built ourselves, as kindnetd does on the ordinary one (its way there
# needs NFT_QUEUE, which not every kernel has). It runs in a pod of kube-router.yaml: kube-router, of which only the firewall is
# on, since pod-network.sh routes and kube-proxy serves Services.
#
# Pods are told apart by sets of addresses (ipset), which follow a pod's labels about 0.3 s after they change. Connections
# that are open stay open: what is established is let through.
set -euo pipefail

ACCOUNT=/var/run/secrets/kubernetes.io/serviceaccount

# Straight to the API server: through the `kubernetes` Service it would end, and be started again after ten seconds, whenever it
# comes up before kube-proxy.
cat >/tmp/kubeconfig <<END
apiVersion: v1
kind: Config
clusters: [{name: here, cluster: {server: "https://$CONTROL_PLANE_ENDPOINT", certificate-authority: $ACCOUNT/ca.crt}}]
users: [{name: me, user: {tokenFile: $ACCOUNT/token}}]
contexts: [{name: me, context: {cluster: here, user: me}}]
current-context: me
END

# 10.96.0.0/16 is the range that kind gives to Services.
exec kube-router --kubeconfig=/tmp/kubeconfig --run-firewall=true --run-router=false --run-service-proxy=false \
	--run-loadbalancer=false --service-cluster-ip-range=10.96.0.0/16 --hostname-override="$NODE_NAME"
