# shellcheck shell=bash
#
# Part of the images that run on a node: who it is for the API server.

# write_kubeconfig FILE: the pod's own ServiceAccount, straight to the API server. Through the `kubernetes` Service it could not
# begin before kube-proxy, and would be started again after ten seconds.
write_kubeconfig() {
	local account=/var/run/secrets/kubernetes.io/serviceaccount
	cat >"$1" <<-END
		apiVersion: v1
		kind: Config
		clusters: [{name: here, cluster: {server: "https://$CONTROL_PLANE_ENDPOINT", certificate-authority: $account/ca.crt}}]
		users: [{name: me, user: {tokenFile: $account/token}}]
		contexts: [{name: me, context: {cluster: here, user: me}}]
		current-context: me
	END
}
