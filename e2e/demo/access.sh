# shellcheck shell=bash
#
# The demo's chapter on access: who may call whom, said once, and held by two enforcers. The network plugin lets nobody else reach an
# agent; an Envoy sees certificates, requests and MCP tools. Sourced by demo.sh after lib.sh, never run.

# The longest that an enforcer can take to follow, on a slow machine.
ENFORCED_WITHIN=60

show_access() {
	local before asked
	before=$(failed_handshakes)
	say "manifests/examples/access.yaml is for the crew. mcp-server.yaml adds a tool server that knows nothing of certificates, with"
	say "an Envoy before it, and lets retrieval call one of its two tools:"
	echo
	# It is at it before there is a policy, and so sees it come.
	watch_in planner refused tools-cut --to "$(address_of tools)"
	asked=$(milliseconds)
	apply_example access.yaml
	apply_example mcp-server.yaml
	wait_for "the search agent" agentidentity/search --namespace "$NAMESPACE"
	wait_for "the access policies" agentaccesspolicy --all --namespace "$NAMESPACE"
	quietly "the pod of search" kubectl rollout status --namespace "$NAMESPACE" deployment/search --timeout=180s
	kubectl get aap --namespace "$NAMESPACE" | indent
	echo
	say "kubectl countersign graph -n $NAMESPACE:"
	echo
	kubectl countersign graph -n "$NAMESPACE" | indent
	echo
	can yes planner retrieval --port 8443
	can no planner tools --port 8443
	can yes retrieval search --port 8443 --tool search
	can no retrieval search --port 8443 --tool delete

	echo
	say "1st enforcer, the network plugin (NetworkPolicy): packets of those who may not call are refused"
	watched tools-cut
	say "  planner -> tools        $WATCHED_WHY, from $((WATCHED_AT - asked)) ms after kubectl apply began"
	[[ $WATCHED_WHY == "no connection"* ]] || fail "the planner must not reach the tools"
	reaches planner retrieval
	reaches executor tools

	echo
	say "2nd enforcer, the Envoy before search: it sees who calls, and which MCP tool"
	asks 200 retrieval search "retrieval calls search"
	asks 403 retrieval delete "retrieval calls delete"
	asks 403 planner search "planner calls search"
	asks certificate_required planner search "no certificate" --without-certificate

	echo
	say "A label that nobody gave: a pod that says that it is the planner"
	say "  labels: {countersign.dev/identity: planner, countersign.dev/state: active}"
	forge_label
	[[ $(failed_handshakes) == "$before" ]] || fail "the policies have cut the crew's own calls"
	echo
	say "and meanwhile none of the crew's own calls has failed"
}

# apply_example FILE: as it stands, with this demo's images and lifetimes.
apply_example() {
	sed -e "s|image: countersign.dev/agent:demo|image: $AGENT_IMAGE|" \
		-e "s|image: countersign.dev/envoy:demo|image: $ENVOY_IMAGE|" \
		-e "s|^\( *\)duration: 1h|\1duration: $DURATION\n\1renewBefore: $RENEW_BEFORE|" \
		"$CHECKOUT/manifests/examples/$1" >"$STATE/$1"
	kubectl apply -f "$STATE/$1" >"$STATE/applied" 2>&1 || fail "kubectl apply refused $1: $(<"$STATE/applied")"
}

# can yes|no FROM TO ...: what countersign says, which must be that.
can() {
	local expected=$1 from=$2 to=$3 said status=0
	shift 3
	said=$(kubectl countersign can "$NAMESPACE/$from" "$NAMESPACE/$to" "$@" 2>&1) || status=$?
	say "kubectl countersign can $NAMESPACE/$from $NAMESPACE/$to $*"
	say "  $said"
	case $expected/$status in
	yes/0 | no/2) ;;
	*) fail "it must say $expected" ;;
	esac
}

# reaches FROM TO: with a whole handshake.
reaches() {
	in_agent "$1" handshake --to "$2:8443" --expect "$(spiffe_id "$2")" >"$STATE/handshake" 2>&1 || {
		cat "$STATE/handshake" >&2
		fail "$1 must reach $2"
	}
	say "$(printf '  %-23s accepted, as the policy says' "$1 -> $2")"
}

# asks EXPECTED AGENT TOOL WHAT ...: the Envoy's answer begins so, or has it in it.
asks() {
	local expected=$1 agent=$2 tool=$3 what=$4 said='' end=$((SECONDS + ENFORCED_WITHIN))
	shift 4
	# The Envoy is there, but the caller's copy of the CRLs or of the roots may still be on its way.
	until said=$(in_agent "$agent" ask --to search:8443 --expect "$(spiffe_id search)" --tool "$tool" "$@" 2>/dev/null || true) && [[ $said == *"$expected"* ]]; do
		((SECONDS < end)) || fail "$what: expected $expected, and was told: $said"
		sleep 1
	done
	say "$(printf '  %-23s %s' "$what" "$said")"
}

forge_label() {
	local said status=0
	said=$(kubectl apply -f - 2>&1 <<-END
		apiVersion: v1
		kind: Pod
		metadata:
		  name: forger
		  namespace: $NAMESPACE
		  labels: {countersign.dev/identity: planner, countersign.dev/state: active}
		spec:
		  automountServiceAccountToken: false
		  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
		  containers:
		    - name: agent
		      image: $AGENT_IMAGE
		      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
	END
	) || status=$?
	fold -s -w 120 <<<"$said" | sed 's/^/      /'
	[[ $status != 0 && $said == *"ValidatingAdmissionPolicy 'countersign-"*denied* ]] || {
		kubectl delete pod forger --namespace "$NAMESPACE" --now --ignore-not-found >/dev/null
		fail "the forged label must be refused by our policy"
	}
}

# --- watching for a moment -------------------------------------------------------------------------------------------

# watch_in AGENT refused|accepted NAME ...: from inside the agent's pod, tries every 20 ms until that is so. Returns when it has seen
# the opposite, and goes on by itself; `watched NAME` waits for its end.
watch_in() {
	local agent=$1 outcome=$2 file=$STATE/watch-$3 end=$((SECONDS + ENFORCED_WITHIN))
	shift 3
	in_agent "$agent" until "$outcome" --within 150 "$@" >"$file" 2>&1 &
	WATCHERS[${file##*/watch-}]=$!
	until grep -q '^watching$' "$file"; do
		((SECONDS < end)) || fail "$agent: what should become $outcome is not otherwise now: $*: $(tail -n 1 "$file")"
		sleep 0.1
	done
}

# watched NAME: WATCHED_AT is the moment in milliseconds since 1970, WATCHED_WHY what was said.
watched() {
	wait "${WATCHERS[$1]}" || fail "$1: $(tail -n 1 "$STATE/watch-$1")"
	read -r WATCHED_AT WATCHED_WHY <<<"$(tail -n 1 "$STATE/watch-$1")"
}

declare -A WATCHERS=()

milliseconds() { echo "${EPOCHREALTIME/./}" | cut -c 1-13; }

# address_of AGENT: of its pod, past the Service.
address_of() { echo "$(kubectl get pod --namespace "$NAMESPACE" "$(pod_of "$1")" --output 'jsonpath={.status.podIP}'):8443"; }

# failed_handshakes: of the whole crew, since its agents started.
failed_handshakes() {
	local R_failed=0 agent failed=0
	for agent in planner executor; do
		read_report "$agent"
		failed=$((failed + R_failed))
	done
	echo "$failed"
}
