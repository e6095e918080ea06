# shellcheck shell=bash
#
# The demo's chapter on revocation: retrieval's key is stolen, it is revoked under traffic, and each who has to learn of it says
# when he did. Sourced by demo.sh after access.sh, never run.

show_revocation() {
	local typed label published others_before thief
	rm -f "$STATE/learnt"
	kubectl apply --namespace "$NAMESPACE" -f "$CHECKOUT/manifests/quarantine/networkpolicy.yaml" >/dev/null
	start_thief
	thief=$(kubectl get pod thief --namespace "$NAMESPACE" --output 'jsonpath={.status.podIP}'):8443
	say "manifests/quarantine/networkpolicy.yaml is in force. A thief has a copy of retrieval's key, in a pod of his own, of which no"
	say "label tells. Until now everybody takes him for retrieval:"
	in_agent planner handshake --to "$thief" --expect "$(spiffe_id retrieval)" >/dev/null || fail "the thief's copy must be good until it is revoked"
	say "  planner -> thief        accepted"
	in_agent thief ask --to search:8443 --expect "$(spiffe_id search)" --tool search >"$STATE/asked" || fail "the thief's copy must be good until it is revoked: $(<"$STATE/asked")"
	say "  thief -> search         $(<"$STATE/asked")"

	watch_in planner refused network-in --to "$(address_of retrieval)"
	watch_in retrieval refused network-out --to "$(address_of search)"
	watch_in planner refused planner --to "$thief" --expect "$(spiffe_id retrieval)"
	watch_in thief refused envoy --to search:8443 --expect "$(spiffe_id search)" --tool search
	watch_label
	watch_trust
	others_before=$(failed_of_others)

	echo
	say "kubectl countersign revoke retrieval -n $NAMESPACE --reason KeyCompromise --message 'its key was stolen'"
	echo
	typed=$(milliseconds)
	kubectl countersign revoke retrieval -n "$NAMESPACE" --reason KeyCompromise --message 'its key was stolen' >"$STATE/revoke" 2>&1 || fail "revoke: $(<"$STATE/revoke")"
	indent <"$STATE/revoke"
	echo
	label=$(stamp_of label '^revoked$' "$typed")
	published=$(stamp_of trust . "$typed")
	learnt "$label" "the pod's label" "countersign.dev/state=revoked, on which policies act"
	watched network-in
	learnt "$WATCHED_AT" "planner -> retrieval" "the network: $WATCHED_WHY"
	[[ $WATCHED_WHY == "no connection"* ]] || fail "the network must cut retrieval off"
	watched network-out
	learnt "$WATCHED_AT" "retrieval -> search" "the network: $WATCHED_WHY"
	[[ $WATCHED_WHY == "no connection"* ]] || fail "the network must cut retrieval off"
	learnt "$published" "crl.pem" "in the namespace's ConfigMap, on its way to where that is mounted"
	watched planner
	learnt "$WATCHED_AT" "planner -> thief" "crl.pem: $WATCHED_WHY"
	[[ $WATCHED_WHY == *revoked* ]] || fail "the planner must refuse the thief for being revoked"
	learnt "$(open_connection_ended "$typed")" "planner -> retrieval" "crl.pem: a connection that was open since long before is ended"
	watched envoy
	learnt "$WATCHED_AT" "thief -> search" "Envoy: $WATCHED_WHY"
	[[ $WATCHED_WHY == *revoked* || $WATCHED_WHY == 403* ]] || fail "the Envoy must refuse the thief"
	show_learnt
	say "What takes seconds is the kubelet, which looks for a changed ConfigMap each 10 to 15 s here, and each 60 to 90 s by default."
	say "Meanwhile, of the calls between those who were not revoked, $(($(failed_of_others) - others_before)) failed."
	[[ $(failed_of_others) == "$others_before" ]] || fail "who was not revoked must not feel it"
	can no planner retrieval --port 8443
	kubectl get agid retrieval --namespace "$NAMESPACE" --output wide | indent

	give_back "$thief"
}

# give_back THIEF: retrieval is trusted again, with a new key; what was stolen never is.
give_back() {
	local typed taken_back
	taken_back=$(kubectl get agid retrieval --namespace "$NAMESPACE" --output 'jsonpath={.status.revoked.serialNumbers}')
	echo
	say "kubectl countersign unrevoke retrieval -n $NAMESPACE"
	echo
	watch_in planner accepted flows --every 100 --to retrieval:8443 --expect "$(spiffe_id retrieval)"
	typed=$(milliseconds)
	kubectl countersign unrevoke retrieval -n "$NAMESPACE" >"$STATE/unrevoke" 2>&1 || fail "unrevoke: $(<"$STATE/unrevoke")"
	indent <"$STATE/unrevoke"
	echo
	watched flows
	learnt "$WATCHED_AT" "planner -> retrieval" "flows again: $WATCHED_WHY"
	show_learnt
	[[ $taken_back != *"${WATCHED_WHY##* }"* ]] || fail "the planner accepted a certificate that was taken back: $taken_back"
	if in_agent planner handshake --to "$1" --expect "$(spiffe_id retrieval)" >"$STATE/thief" 2>&1; then
		fail "the thief's copy is trusted again, which it must never be"
	fi
	grep -q 'revoked' "$STATE/thief" || fail "the planner must still refuse the thief for being revoked: $(<"$STATE/thief")"
	say "and the thief's copy is refused as before: it stays on the list until it would have ended anyway"
	remove_thief
}

# learnt AT WHO HOW: a row of the table. `typed` is the caller's.
learnt() {
	[[ -n $1 ]] || fail "$2: it has not come to that within $ENFORCED_WITHIN s"
	(($1 > typed)) || fail "$2: the moment $1 is not after $typed, so it was not this revocation"
	printf '    %6d ms   %-22s %s\n' $(($1 - typed)) "$2" "$3" >>"$STATE/learnt"
}

# show_learnt: the table, in the order of events.
show_learnt() {
	say "after Enter  who               learns of it by"
	sort -n "$STATE/learnt"
	rm "$STATE/learnt"
	echo
}

# --- the thief -------------------------------------------------------------------------------------------------------

# start_thief: a pod of the namespace without an identity, which has a copy of retrieval's Secret as it is now.
start_thief() {
	remove_thief
	kubectl get secret retrieval-identity --namespace "$NAMESPACE" --output 'go-template={{index .data "tls.crt"}} {{index .data "tls.key"}}{{"\n"}}' |
		{
			read -r certificate key
			cat <<-END
				---
				apiVersion: v1
				kind: Secret
				metadata: {name: stolen, namespace: $NAMESPACE}
				data: {tls.crt: $certificate, tls.key: $key}
				---
				apiVersion: v1
				kind: Pod
				metadata: {name: thief, namespace: $NAMESPACE, labels: {app: thief}}
				spec:
				  automountServiceAccountToken: false
				  securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
				  containers:
				    - name: agent
				      image: $AGENT_IMAGE
				      args: [serve, --allow, "$(spiffe_id planner)"]
				      readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
				      volumeMounts: [{name: stolen, mountPath: /var/run/countersign, readOnly: true}]
				      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
				  volumes:
				    - name: stolen
				      projected:
				        defaultMode: 0440
				        sources:
				          - secret: {name: stolen}
				          - configMap: {name: countersign-trust-demo, items: [{key: ca.crt, path: ca.crt}]}
			END
		} | kubectl apply -f - >/dev/null
	kubectl wait --for=condition=Ready pod/thief --namespace "$NAMESPACE" --timeout=120s >/dev/null || {
		kubectl describe pod thief --namespace "$NAMESPACE" >&2
		fail "the thief's pod does not start"
	}
}

remove_thief() {
	kubectl delete pod/thief secret/stolen --namespace "$NAMESPACE" --now --ignore-not-found >/dev/null
}

# --- watching for a moment -------------------------------------------------------------------------------------------

# watch_label: the moments at which the API server told that the pod has the label.
watch_label() {
	stamped label kubectl get pods --namespace "$NAMESPACE" --selector app=retrieval --watch-only --output 'jsonpath={.metadata.labels.countersign\.dev/state}{"\n"}'
}

# watch_trust: the moments at which the ConfigMap changed.
watch_trust() {
	stamped trust kubectl get configmap countersign-trust-demo --namespace "$NAMESPACE" --watch-only --output 'jsonpath={.metadata.resourceVersion}{"\n"}'
}

# stamped NAME COMMAND...: in the background, for at most a minute, each line of it with the moment it came.
stamped() {
	local file=$STATE/watch-$1
	shift
	: >"$file"
	{
		timeout 60 "$@" 2>/dev/null | while read -r line; do
			echo "$(milliseconds) $line" >>"$file"
		done || true
	} >/dev/null &
}

# stamp_of NAME PATTERN SINCE: the first moment after that with such a line.
stamp_of() {
	local end=$((SECONDS + ENFORCED_WITHIN)) at line
	while ((SECONDS < end)); do
		while read -r at line; do
			if ((at > $3)) && grep -q -- "$2" <<<"$line"; then
				echo "$at"
				return
			fi
		done <"$STATE/watch-$1"
		sleep 0.2
	done
}

# open_connection_ended SINCE: the planner's own word for it, in milliseconds since 1970.
open_connection_ended() {
	local end=$((SECONDS + ENFORCED_WITHIN)) at
	while ((SECONDS < end)); do
		at=$(kubectl logs --namespace "$NAMESPACE" "$(pod_of planner)" --since=150s | grep -F 'I end the connection to retrieval: ' | grep -F revoked | tail -n 1 | cut -d ' ' -f 1)
		[[ -z $at || $(date --date "$at" +%s%3N) -lt $1 ]] || {
			date --date "$at" +%s%3N
			return
		}
		sleep 0.5
	done
}

# failed_of_others: handshakes that failed between those who are not revoked.
failed_of_others() {
	local R_failed_executor=0 R_failed_tools=0
	read_report planner
	read_report executor
	echo $((R_failed_executor + R_failed_tools))
}
