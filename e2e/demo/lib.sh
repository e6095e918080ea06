# shellcheck shell=bash
#
# The demo's steps as functions: demo.sh calls them in order. Each prints what it does, and fails, with a sentence, if what it shows
# is not so; that is why the same run on another cluster is a test. Sourced, never run.

DEMO=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
CHECKOUT=$(cd "$DEMO/../.." && pwd)

# Where everything is. The defaults are names that people and scripts rely on (README.md).
CLUSTER=${COUNTERSIGN_CLUSTER:-countersign-demo}
STATE=${COUNTERSIGN_STATE:-$CHECKOUT/target/demo}
RELEASE=countersign-system
NAMESPACE=research
CREW=(planner retrieval executor tools)
TRUST_DOMAIN=demo.countersign.dev

mkdir -p "$STATE"
STATE=$(cd "$STATE" && pwd)
export KUBECONFIG=$STATE/kubeconfig
PATH=$CHECKOUT/target/tools:$PATH

# The crew's certificates live as short as an AgentIdentity may ask for, and are renewed after half a minute of that, so that
# whenever the demo comes to its end a rotation is about to happen by itself.
DURATION=5m
RENEW_BEFORE=4m30s
# The longest that one can take to be seen: half a minute until it is due, the kubelet's 10 to 15 s, and a slow machine.
ROTATION_WITHIN=180

# --- how it speaks ---------------------------------------------------------------------------------------------------

STEP=0

step() {
	STEP=$((STEP + 1))
	printf '\n\033[1m%2d. %s\033[0m  \033[2m(after %d s)\033[0m\n' "$STEP" "$1" "$SECONDS" | plain_unless_terminal
}

say() { printf '    %s\n' "$*"; }

fail() {
	printf '\ndemo: %s\n' "$*" >&2
	exit 1
}

indent() { sed -u 's/^/    /'; }

# plain_unless_terminal: without the bold where nobody would see it.
plain_unless_terminal() { if [[ -t 1 ]]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }

# quietly WHAT COMMAND...: runs it, says every 15 s that it is still at it, and shows its output only if it fails.
quietly() {
	local what=$1 log ticker status=0
	shift
	log=$(mktemp "$STATE/log.XXXXXX")
	tick "$what" &
	ticker=$!
	# In the foreground, so that Ctrl-C reaches it.
	"$@" >"$log" 2>&1 || status=$?
	kill "$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
	((status == 0)) || {
		tail -n 40 "$log" >&2
		fail "$what: failed; its last words are above, all of them in $log"
	}
	rm "$log"
}

tick() {
	local began=$SECONDS
	# Its sleep outlives it, and must not keep a pipe open that somebody reads to its end.
	while sleep 15 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
		say "still at it after $((SECONDS - began)) s: $1"
	done
}

# --- the cluster and what runs in it ---------------------------------------------------------------------------------

build_tools() {
	"$CHECKOUT/e2e/tools/build.sh" apiserver cluster helm 2>&1 | indent
}

start_cluster() {
	"$CHECKOUT/e2e/kind/up.sh" "$CLUSTER" "$KUBECONFIG" "$DEMO/cluster.yaml" 2>&1 | indent
	say "kubectl talks to it with KUBECONFIG=${KUBECONFIG#"$PWD/"}"
}

build_programs() {
	command -v cargo >/dev/null || fail "Rust is missing: install it (https://rustup.rs), then run this again"
	say "a cold build takes about 6 minutes on two cores, a warm one a second"
	quietly "cargo build --release" cargo build --release --quiet --manifest-path "$CHECKOUT/Cargo.toml" \
		--package countersign --package countersign-agent
	ln -sfn ../release/countersign "$CHECKOUT/target/tools/kubectl-countersign"
	say "target/release/countersign, also as kubectl plugin: target/tools/kubectl-countersign"
}

# Images are named by what is in them: what has not changed is neither loaded nor restarted, and what has changed is.
build_images() {
	local operator=$STATE/operator-image agent=$STATE/agent-image envoy=$STATE/envoy-image
	mkdir -p "$operator" "$agent" "$envoy"

	cp "$CHECKOUT/Dockerfile" "$operator/Dockerfile"
	"$CHECKOUT/packaging/assemble.sh" "$CHECKOUT/target/release/countersign" "$operator/target/image" kubectl-countersign
	OPERATOR_TAG=demo-$(digest_of "$operator")
	load_image "$operator" "countersign.dev/countersign:$OPERATOR_TAG"

	cp "$CHECKOUT/e2e/agent/Dockerfile" "$agent/Dockerfile"
	"$CHECKOUT/packaging/assemble.sh" "$CHECKOUT/target/release/agent" "$agent/root"
	AGENT_IMAGE=countersign.dev/agent:demo-$(digest_of "$agent")
	load_image "$agent" "$AGENT_IMAGE"

	"$CHECKOUT/e2e/judges/build.sh" envoy 2>&1 | indent
	cp "$DEMO/envoy.Dockerfile" "$envoy/Dockerfile"
	"$CHECKOUT/packaging/assemble.sh" "$CHECKOUT/target/tools/envoy-program" "$envoy/root"
	ENVOY_IMAGE=countersign.dev/envoy:demo-$(digest_of "$envoy")
	load_image "$envoy" "$ENVOY_IMAGE"
}

load_image() { "$CHECKOUT/e2e/kind/image.sh" "$CLUSTER" "$1" "$2" 2>&1 | indent; }

digest_of() {
	(cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | cut -c 1-12
}

install_chart() {
	forget_interrupted_helm
	quietly "helm upgrade --install" helm upgrade --install "$RELEASE" "$CHECKOUT/charts/countersign" \
		--namespace "$RELEASE" --create-namespace --wait --timeout 5m \
		--set-string "image.repository=countersign.dev/countersign,image.tag=$OPERATOR_TAG"
	helm list --namespace "$RELEASE" | indent
	kubectl get pods --namespace "$RELEASE" | indent
}

# forget_interrupted_helm: a helm that was ended in its middle (Ctrl-C) leaves a note that it is at work, and every later one
# waits for it in vain. What it did is in the cluster, and the next helm goes on from there.
forget_interrupted_helm() {
	kubectl delete secrets --namespace "$RELEASE" --ignore-not-found >/dev/null \
		--selector "owner=helm,name=$RELEASE,status in (pending-install,pending-upgrade,pending-rollback)"
}

declare_trust_domain() {
	# The example as it stands, but a new root soaks for seconds, and an old one is trusted as long as these certificates live.
	{
		cat "$CHECKOUT/manifests/examples/trust-domain.yaml"
		printf '  ca: {soak: %s}\n  identities: {maxDuration: %s}\n' "$SOAK" "$DURATION"
	} >"$STATE/trust-domain.yaml"
	kubectl apply -f "$STATE/trust-domain.yaml" | indent
	wait_for "TrustDomain demo" trustdomain/demo
	kubectl get trustdomain demo | indent
}

# forget_last_time: what later chapters of an earlier demo have left in a cluster that is used again. Each chapter begins as it did then.
forget_last_time() {
	kubectl get namespace "$NAMESPACE" >/dev/null 2>&1 || return 0
	kubectl delete agentaccesspolicies --all --namespace "$NAMESPACE" >/dev/null
	kubectl delete networkpolicy/countersign-quarantine pod/thief pod/forger secret/stolen --namespace "$NAMESPACE" --now --ignore-not-found >/dev/null
	kubectl patch agentidentity retrieval --namespace "$NAMESPACE" --type merge --patch '{"spec": {"revoked": null}}' >/dev/null 2>&1 || true
}

start_crew() {
	forget_last_time
	# The example as it stands, with this image and certificates of minutes.
	sed -e "s|image: countersign.dev/agent:demo|image: $AGENT_IMAGE|" \
		-e "s|^\( *\)duration: 1h|\1duration: $DURATION\n\1renewBefore: $RENEW_BEFORE|" \
		"$CHECKOUT/manifests/examples/research-crew.yaml" >"$STATE/research-crew.yaml"
	apply_crew
	say "manifests/examples/research-crew.yaml: $(grep -vc unchanged "$STATE/applied" || true) of $(grep -c . "$STATE/applied") objects are new or changed"
	wait_for "the identities" agentidentity --all --namespace "$NAMESPACE"
	local agent
	for agent in "${CREW[@]}"; do
		quietly "the pods of $agent" kubectl rollout status --namespace "$NAMESPACE" "deployment/$agent" --timeout=180s
	done
	say "every identity is Ready and every agent runs with it"
}

# The API server reads the schema of a new CustomResourceDefinition for its MutatingAdmissionPolicies some seconds after it
# serves it, and refuses until then whatever they concern. A GitOps tool tries again; so do we, for a minute and for nothing else.
apply_crew() {
	local deadline=$((SECONDS + 60))
	until kubectl apply -f "$STATE/research-crew.yaml" >"$STATE/applied" 2>"$STATE/refused"; do
		if ((SECONDS > deadline)) || ! grep -q 'There can be a delay between when CustomResourceDefinitions are created' "$STATE/refused"; then
			fail "kubectl apply refused the crew: $(<"$STATE/refused")"
		fi
		say "the API server has not read the new definitions for its admission policies yet; once more"
		sleep 1
	done
}

# wait_for WHAT OBJECTS...: until they are Ready; else shows what their conditions say.
wait_for() {
	local what=$1
	shift
	kubectl wait --for=condition=Ready "$@" --timeout=180s >/dev/null || {
		kubectl describe "$@" >&2
		kubectl logs --namespace "$RELEASE" --selector app.kubernetes.io/name=countersign --tail=20 >&2
		fail "not Ready within 3 minutes: $what; its conditions and the operator's log are above"
	}
}

# --- what there is to see --------------------------------------------------------------------------------------------

show_identities() {
	kubectl get agid --namespace "$NAMESPACE" | indent
	echo
	say "and the labels that the operator gave their pods:"
	kubectl get pods --namespace "$NAMESPACE" --selector app --label-columns countersign.dev/identity,countersign.dev/role,countersign.dev/state | indent
}

show_certificate() {
	local folder=$STATE/planner
	command -v openssl >/dev/null || {
		say "openssl is not installed, so nobody else can read it to you here"
		return
	}
	mkdir -p "$folder"
	kubectl get secret planner-identity --namespace "$NAMESPACE" --output 'jsonpath={.data.tls\.crt}' | base64 -d >"$folder/tls.crt"
	kubectl get configmap countersign-trust-demo --namespace "$NAMESPACE" --output 'jsonpath={.data.ca\.crt}' >"$folder/ca.crt"
	say "Its only name is the SPIFFE ID. Its life begins two minutes before it was signed, for peers whose clocks are behind."
	openssl x509 -in "$folder/tls.crt" -noout -text -certopt no_pubkey,no_sigdump,no_header | indent
	echo
	say "openssl verify -CAfile ca.crt -untrusted tls.crt tls.crt:"
	openssl verify -CAfile "$folder/ca.crt" -untrusted "$folder/tls.crt" -purpose sslclient "$folder/tls.crt" 2>&1 |
		sed "s|$folder/||" | indent
}

show_handshake() {
	local end=$((SECONDS + 30))
	until in_agent planner handshake --to retrieval:8443 --expect "$(spiffe_id retrieval)" >"$STATE/handshake" 2>&1; do
		# A pod that has just come up may not be reached yet. That is not a handshake, and all else is an answer.
		grep -q '^ *no connection' "$STATE/handshake" && ((SECONDS < end)) && sleep 1 && continue
		cat "$STATE/handshake" >&2
		fail "planner and retrieval do not come together"
	done
	indent <"$STATE/handshake"
	[[ $(grep -c '^[1-6] ' "$STATE/handshake") == 6 ]] || fail "a mutual handshake has six steps; this had others"
}

spiffe_id() { echo "spiffe://$TRUST_DOMAIN/ns/$NAMESPACE/sa/$1"; }

# in_agent AGENT ARGUMENTS...: runs the agent's program beside the one that runs there.
in_agent() {
	local pod
	pod=$(pod_of "$1")
	shift
	kubectl exec --namespace "$NAMESPACE" "$pod" -- agent "$@"
}

# pod_of AGENT: its pod; not one on its way out, which `deploy/AGENT` may mean for some seconds after a change.
pod_of() {
	kubectl get pods --namespace "$NAMESPACE" --selector "app=$1" --output go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}' | head -n 1
}

# --- who must not get in ---------------------------------------------------------------------------------------------

show_refusals() {
	local with
	kubectl delete pods --namespace "$NAMESPACE" --selector demo=intruder --now --ignore-not-found >/dev/null
	for with in nothing other-ca no-certificate; do
		intruder "$with"
	done | kubectl apply -f - >/dev/null

	say "three pods of the namespace try to reach the tools, which answer the executor alone:"
	must_be_refused nothing "a pod with no identity"
	must_be_refused other-ca "a pod with a certificate of another CA, for the executor's own SPIFFE ID"
	must_be_refused no-certificate "a pod that speaks TLS and shows no certificate"
	kubectl delete pods --namespace "$NAMESPACE" --selector demo=intruder --now >/dev/null
	planner_must_not_use_tools
}

# intruder WITH: a pod that may read what everybody may, ca.crt, and has no AgentIdentity.
intruder() {
	cat <<-END
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: intruder-$1, namespace: $NAMESPACE, labels: {demo: intruder}}
		spec:
		  restartPolicy: Never
		  automountServiceAccountToken: false
		  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
		  containers:
		    - name: agent
		      image: $AGENT_IMAGE
		      args: [intrude, --with=$1, "--to=tools:8443", "--expect=$(spiffe_id tools)", "--pretend=$(spiffe_id executor)"]
		      volumeMounts: [{name: trust, mountPath: /var/run/countersign, readOnly: true}]
		      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
		  volumes: [{name: trust, configMap: {name: countersign-trust-demo, items: [{key: ca.crt, path: ca.crt}]}}]
	END
}

# must_be_refused WITH TITLE: the pod's own words, and the server's about it.
must_be_refused() {
	local pod=intruder-$1 phase='' end=$((SECONDS + 120)) address words line
	until [[ $phase == Succeeded || $phase == Failed ]]; do
		((SECONDS < end)) || {
			kubectl describe pod --namespace "$NAMESPACE" "$pod" >&2
			fail "$2: it did not come to an end within 120 s"
		}
		sleep 0.5
		phase=$(kubectl get pod --namespace "$NAMESPACE" "$pod" --output 'jsonpath={.status.phase}')
	done
	words=$(kubectl logs --namespace "$NAMESPACE" "$pod")
	address=$(kubectl get pod --namespace "$NAMESPACE" "$pod" --output 'jsonpath={.status.podIP}')
	echo
	say "$2"
	while read -r line; do say "  it says     $line"; done <<<"$words"
	kubectl logs --namespace "$NAMESPACE" "$(pod_of tools)" --since=120s | grep -F "$address:" | grep refused | tail -n 1 | sed 's/^[^ ]* */      tools says  /' || true
	[[ $phase == Succeeded && $words == *"refused, as must be"* ]] || fail "$2 was NOT refused"
}

# A good identity is not yet a permission.
planner_must_not_use_tools() {
	echo
	say "the planner, whose identity is genuine, but who is not the executor"
	if in_agent planner handshake --to tools:8443 --expect "$(spiffe_id tools)" >"$STATE/refused" 2>/dev/null; then
		fail "the planner was let in by the tools, which must answer the executor alone"
	fi
	grep "server's verdict" "$STATE/refused" | sed "s/^[0-9] server's verdict */      it was told /" || fail "the planner did not get as far as the tools' verdict"
}

# --- one rotation under traffic --------------------------------------------------------------------------------------

# show_rotation: the agents call each other five times a second all the while. Done when every one of them has taken up a new
# certificate and has used it for some seconds; passed when not one handshake failed from the first to the last.
show_rotation() {
	declare -A OLD=() NEW=() TRIED_BEFORE=() FAILED_BEFORE=() STARTED=()
	local agent began=$SECONDS tried failed rotated elapsed all=no
	say "certificates here live $DURATION and are renewed $RENEW_BEFORE before their end, and these kubelets look each 10 to 15 s, so"
	say "every agent takes up a new one within about 45 s. Elsewhere a kubelet looks each 60 to 90 s: leave a certificate more time."
	for agent in "${CREW[@]}"; do
		read_report "$agent"
		OLD[$agent]=$R_serial TRIED_BEFORE[$agent]=$R_tried FAILED_BEFORE[$agent]=$R_failed STARTED[$agent]=$R_started
	done

	while true; do
		sleep 4
		tried=0 failed=0 rotated=()
		for agent in "${CREW[@]}"; do
			read_report "$agent"
			[[ $R_started == "${STARTED[$agent]}" ]] || fail "$agent was restarted in the middle: what it had counted is lost"
			tried=$((tried + R_tried - TRIED_BEFORE[$agent])) failed=$((failed + R_failed - FAILED_BEFORE[$agent]))
			[[ $R_serial == "${OLD[$agent]}" ]] || NEW[$agent]=$R_serial
			[[ -z ${NEW[$agent]:-} ]] || rotated+=("$agent")
		done
		elapsed=$((SECONDS - began))
		printf '    %3d s  handshakes: %5d tried, %d failed   on a new certificate: %s\n' "$elapsed" "$tried" "$failed" "${rotated[*]:-nobody yet}"
		# One reading more after the last one rotated: then the newest certificates have been put to use.
		[[ $all == no ]] || break
		((${#rotated[@]} < ${#CREW[@]})) || all=yes
		((elapsed < ROTATION_WITHIN)) || fail "no new certificate reached all agents within $ROTATION_WITHIN s"
	done

	echo
	for agent in "${CREW[@]}"; do
		printf '    %-10s serial %s -> %s\n' "$agent" "${OLD[$agent]}" "${NEW[$agent]}"
	done
	printf '\n    handshakes tried %d, failed %d, while every certificate was replaced\n' "$tried" "$failed"
	((tried > 0)) || fail "no handshake was tried at all"
	((failed == 0)) || fail "$failed handshakes failed: kubectl exec -n $NAMESPACE deploy/planner -- agent report says which"
}

# read_report AGENT: its counters as variables: R_serial, R_tried, and so on.
read_report() {
	local line pair
	R_serial='' R_tried='' R_failed='' R_started=''
	line=$(in_agent "$1" report --line) || fail "$1 does not report"
	for pair in $line; do
		printf -v "R_${pair%%=*}" '%s' "${pair#*=}"
	done
}
