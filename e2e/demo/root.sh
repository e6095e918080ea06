# shellcheck shell=bash
#
# The demo's chapter on trust: the root CA is replaced, and nobody notices. Sourced by demo.sh after lib.sh, never run.

# How long a new root is trusted everywhere before it signs: 10 minutes by default, since a kubelet takes up to 100 s to bring
# a changed file to a pod. Here pods are touched, which brings it in a second or two, and nobody wants to wait longer.
SOAK=20s
# The longest that the whole can take to be seen on a slow machine.
NEW_ROOT_WITHIN=240

# show_new_root: done when every agent holds a certificate under the new root and has used it for some seconds; passed when not
# one handshake failed from the first to the last, and all of them found the new root at the end of their peers' chains.
show_new_root() {
	declare -A TRIED_BEFORE=() FAILED_BEFORE=() STARTED=()
	local R_serial='' R_tried='' R_failed='' R_started=''
	local agent began old_root old_key asked tried failed moved phase line last='' all=no drawn=no
	say "kubectl countersign trust demo, before:"
	echo
	kubectl countersign trust demo | indent
	echo
	old_root=$(root_met)
	certificates_under_active_ca
	old_key=$ACTIVE_ROOT
	for agent in "${CREW[@]}"; do
		read_report "$agent"
		TRIED_BEFORE[$agent]=$R_tried FAILED_BEFORE[$agent]=$R_failed STARTED[$agent]=$R_started
	done

	say "kubectl countersign rotate-ca demo, with a soak of $SOAK instead of 10 minutes:"
	echo
	began=$SECONDS
	kubectl countersign rotate-ca demo >"$STATE/rotate-ca" 2>&1 &
	asked=$!
	while true; do
		touch_pods
		sleep 2
		tried=0 failed=0 moved=()
		phase=$(kubectl get trustdomain demo --output 'jsonpath={.status.conditions[?(@.type=="Rotating")].reason}')
		certificates_under_active_ca
		for agent in "${CREW[@]}"; do
			read_report "$agent"
			[[ $R_started == "${STARTED[$agent]}" ]] || fail "$agent was restarted in the middle: what it had counted is lost"
			tried=$((tried + R_tried - TRIED_BEFORE[$agent])) failed=$((failed + R_failed - FAILED_BEFORE[$agent]))
			[[ $ACTIVE_ROOT == "$old_key" || ${UNDER_ACTIVE[$agent]:-} != "$R_serial" ]] || moved+=("$agent")
		done
		line="${phase:-not begun}; under the new root: ${moved[*]:-nobody yet}"
		# What is as before is said every six seconds, what is new at once.
		if [[ $line != "$last" ]] || (((SECONDS - began) % 6 < 2)); then
			printf '    %3d s  handshakes: %5d tried, %d failed   %s\n' $((SECONDS - began)) "$tried" "$failed" "$line"
		fi
		last=$line
		if [[ $phase == Soaking && $drawn == no ]]; then
			drawn=yes
			echo
			kubectl countersign trust demo | indent
			echo
		fi
		[[ $all == no ]] || break
		((${#moved[@]} < ${#CREW[@]})) || all=yes
		((SECONDS - began < NEW_ROOT_WITHIN)) || fail "no certificate under a new root reached all agents within $NEW_ROOT_WITHIN s"
	done

	echo
	say "what rotate-ca said:"
	wait "$asked" || {
		cat "$STATE/rotate-ca" >&2
		fail "rotate-ca did not see the new CA sign"
	}
	echo
	indent <"$STATE/rotate-ca"
	echo
	say "kubectl countersign trust demo, after:"
	echo
	kubectl countersign trust demo | indent
	new_root_must_be_met "$old_root"
	printf '\n    handshakes tried %d, failed %d, while the root CA was replaced\n' "$tried" "$failed"
	((tried > 0)) || fail "no handshake was tried at all"
	((failed == 0)) || fail "$failed handshakes failed: kubectl exec -n $NAMESPACE deploy/planner -- agent report says which"
}

# touch_pods: a kubelet that sees a pod change brings all that its volumes hold up to date at once.
touch_pods() {
	kubectl annotate pods --namespace "$NAMESPACE" --selector app --overwrite "demo-touched=$SECONDS" >/dev/null
}

# certificates_under_active_ca: ACTIVE_ROOT is the key id of the root whose issuing CA signs, and UNDER_ACTIVE has, of each
# agent whose certificate that CA signed, the serial number.
certificates_under_active_ca() {
	local issuing agent serial authority
	read -r issuing ACTIVE_ROOT <<<"$(kubectl get trustdomain demo --output \
		'jsonpath={range .status.slots[?(@.phase=="Active")]}{.keyId} {.signedBy}{"\n"}{end}' | awk 'NF == 2')"
	declare -gA UNDER_ACTIVE=()
	while read -r agent serial authority; do
		[[ $authority != "$issuing" ]] || UNDER_ACTIVE[$agent]=$serial
	done < <(kubectl get agentidentities --namespace "$NAMESPACE" --output \
		'jsonpath={range .items[*]}{.metadata.name} {.status.certificate.serialNumber} {.status.certificate.authorityKeyId}{"\n"}{end}')
}

# root_met: the root that each of the crew found at the end of the other's chain, in their own words; a line a root.
root_met() {
	{
		roots_of planner retrieval
		roots_of executor tools
	} | sort -u
}

# roots_of CLIENT SERVER: by one handshake.
roots_of() {
	in_agent "$1" handshake --to "$2:8443" --expect "$(spiffe_id "$2")" >"$STATE/handshake" 2>&1 || {
		cat "$STATE/handshake" >&2
		fail "$1 and $2 do not come together"
	}
	sed -n -e 's/, which is in the .*//' -e 's/^ *chain[a-z]* to  *\(.*\)$/\1/p' "$STATE/handshake"
}

# new_root_must_be_met OLD: by all of the crew, and no other.
new_root_must_be_met() {
	local root
	root=$(root_met)
	echo
	say "planner and retrieval, executor and tools: each finds at the end of the other's chain"
	say "  before      $1"
	say "  now         $root"
	[[ -n $root && $root != "$1" && $root != *$'\n'* ]] || fail "all of them must find the new root, and it alone"
}
