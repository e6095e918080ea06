#!/usr/bin/env bash
#
# Makes sure that a Docker engine answers, and writes $COUNTERSIGN_CACHE/docker/env for the scripts that use it:
#
#     DOCKER_HOST    where the engine listens, if that is not the default
#     SYS_RESOURCE   "granted", or "withheld" where this machine lets nobody have CAP_SYS_RESOURCE
#
# An engine that already answers is used as it is. Where none does, and only for root on Debian, this installs docker.io
# and runs a daemon of our own, whose data lie in the cache and whose socket only root may open. Run it as often as you
# like: a daemon that died is started again.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

STATE=$CACHE/docker
EXEC_ROOT=/run/countersign-docker # not under the cache: the paths of sockets are short

answers() { docker version >/dev/null 2>&1; }

# probed_of: what the probe's answer is good for: this engine, until this machine starts anew.
probed_of() { echo "$(docker info --format '{{.ID}}' 2>/dev/null)@$(</proc/sys/kernel/random/boot_id)"; }

# find_engine: true if one answers where we are told to look, or where we left one.
find_engine() {
	command -v docker >/dev/null || return 1
	if [[ -n ${DOCKER_HOST:-} ]]; then
		answers || fail "DOCKER_HOST=$DOCKER_HOST does not answer; start that engine, or unset DOCKER_HOST"
		return
	fi
	answers && return
	[[ -S $STATE/docker.sock ]] || return 1
	export DOCKER_HOST=unix://$STATE/docker.sock
	answers || {
		unset DOCKER_HOST
		return 1
	}
}

# start_daemon: one of our own. Its PATH is the system's, lest dockerd start the containerd of target/tools instead of its own.
start_daemon() {
	local socket=/var/run/docker.sock pidfile=$STATE/dockerd.pid began=$SECONDS daemon fd
	# A socket that somebody is bound to is not ours to take, even if nobody answers there at the moment.
	if grep -q '/run/docker\.sock$' /proc/net/unix; then
		socket=$STATE/docker.sock
		export DOCKER_HOST=unix://$socket
	fi
	forget_dead dockerd "$pidfile"
	forget_dead containerd $EXEC_ROOT/containerd/containerd.pid
	say "starting a Docker daemon of our own on $socket (data and log: $STATE)"
	(
		# What this script and its callers hold locked must not stay so for as long as the daemon lives.
		for fd in /proc/self/fd/*; do
			((${fd##*/} <= 2)) || eval "exec ${fd##*/}>&-"
		done
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin exec setsid nohup dockerd \
			--data-root "$STATE/data" --exec-root $EXEC_ROOT --pidfile "$pidfile" \
			--host "unix://$socket" --group root
	) >"$STATE/dockerd.log" 2>&1 </dev/null &
	daemon=$!
	wait_until 60 answers_or_died "$daemon" || true
	answers || {
		tail -n 30 "$STATE/dockerd.log" >&2
		fail "the Docker daemon does not answer; the end of its log is above, all of it in $STATE/dockerd.log"
	}
	say "the Docker daemon answers after $((SECONDS - began)) s"
}

# forget_dead PROGRAM PIDFILE: a daemon that was killed leaves its number behind, and dockerd will neither start itself nor
# its containerd while any process has that number, be it a dead one that nobody has buried (whose command line is empty).
forget_dead() {
	if [[ -e $2 ]] && ! grep -qs "$1" "/proc/$(<"$2")/cmdline"; then
		rm -f "$2"
	fi
}

answers_or_died() { answers || ! kill -0 "$1" 2>/dev/null; }

# probe_sys_resource: kind's nodes are privileged containers, which need every capability. Some machines (micro-VM sandboxes)
# withhold one, and then no privileged container starts at all. So try one: pause, asked for its version.
probe_sys_resource() {
	local context output
	"$CHECKOUT/e2e/tools/build.sh" pause >/dev/null
	context=$(mktemp -d)
	cp -L "$CHECKOUT/target/tools/pause" "$context/pause"
	printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >"$context/Dockerfile"
	DOCKER_BUILDKIT=0 docker build --quiet --tag countersign/probe "$context" >/dev/null 2>"$STATE/probe.log" || {
		cat "$STATE/probe.log" >&2
		fail "docker cannot build an image from scratch"
	}
	rm -rf "$context"
	if output=$(docker run --rm --privileged countersign/probe -v 2>&1); then
		SYS_RESOURCE=granted
	elif [[ $output == *"unable to apply caps"* ]]; then
		SYS_RESOURCE=withheld
		say "this machine withholds CAP_SYS_RESOURCE: nodes will run with every other capability instead of --privileged"
	else
		fail "docker cannot run a privileged container: $output"
	fi
}

write_env() {
	{
		[[ -z ${DOCKER_HOST:-} ]] || echo "export DOCKER_HOST=$DOCKER_HOST"
		echo "SYS_RESOURCE=$SYS_RESOURCE"
		echo "PROBED=$PROBED"
	} >"$STATE/env.new"
	mv "$STATE/env.new" "$STATE/env"
}

main() {
	mkdir -p "$STATE"
	hold_lock "$STATE/lock" "the Docker engine"
	if ! find_engine; then
		command -v dockerd >/dev/null || {
			install_packages "no Docker engine answers" docker.io
			hash -r
		}
		# Where systemd runs, the package has started the machine's own daemon, and that one will do.
		find_engine || {
			[[ $EUID == 0 ]] || fail "no Docker engine answers: start one (as root this script runs one by itself)"
			start_daemon
		}
	fi
	PROBED=$(probed_of)
	if [[ -e $STATE/env ]] && grep -qxF "PROBED=$PROBED" "$STATE/env"; then
		SYS_RESOURCE=$(sed -n 's/^SYS_RESOURCE=//p' "$STATE/env")
	else
		probe_sys_resource
	fi
	write_env
}

main "$@"
