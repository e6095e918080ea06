# shellcheck shell=bash disable=SC2034 # sourced: whoever sources it uses these
#
# What the scripts of this folder share: where things are, how they speak, and how they get their programs and their
# Docker engine. Sourced, never run.

KIND=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
CHECKOUT=$(cd "$KIND/../.." && pwd)
CACHE=${COUNTERSIGN_CACHE:-$HOME/.cache/countersign}
CLUSTERS=$CACHE/clusters # one file a cluster that up.sh made, and the host's settings as they were before the first

say() { printf 'kind: %s\n' "$*" >&2; }

fail() {
	say "$*"
	exit 1
}

# hold_lock FILE WHAT: until this script ends, no other holds FILE. A process that outlives the script must close what it inherits.
hold_lock() {
	mkdir -p "${1%/*}"
	exec {lock}>"$1"
	flock --nonblock "$lock" && return
	say "waiting for another run that is busy with $2"
	flock "$lock"
}

# wait_until SECONDS COMMAND...: polls until COMMAND succeeds; false if it never does.
wait_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < end)) || return 1
		sleep 0.2
	done
}

# install_packages WHY PACKAGE...: from Debian, where we may; elsewhere says what is missing and ends.
install_packages() {
	local why=$1
	shift
	if [[ $EUID != 0 || ! -e /etc/debian_version ]]; then
		fail "$why: please install $* (as root on Debian this script does it by itself)"
	fi
	say "$why: installing $* from Debian"
	# One update, then no recommended extras: this may be somebody's own machine.
	{
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
	} >"$CACHE/apt.log" 2>&1 </dev/null || {
		tail -n 20 "$CACHE/apt.log" >&2
		fail "apt-get could not install $*"
	}
}

# use_tools GROUP...: the programs of e2e/tools first in PATH.
use_tools() {
	"$CHECKOUT/e2e/tools/build.sh" "$@" >/dev/null
	PATH=$CHECKOUT/target/tools:$PATH
}

# use_docker: an engine that answers, and `docker` a command that can run kind's nodes on it.
use_docker() {
	"$KIND/docker.sh"
	# shellcheck disable=SC1091 # written by docker.sh
	source "$CACHE/docker/env"
	# Debian's docker.io has no BuildKit.
	export DOCKER_BUILDKIT=0
	if [[ $SYS_RESOURCE == withheld ]]; then
		# A script that another one called has the wrapper in its PATH already, and must not take it for the real one.
		if [[ -z ${COUNTERSIGN_REAL_DOCKER:-} ]]; then
			COUNTERSIGN_REAL_DOCKER=$(command -v docker)
			export COUNTERSIGN_REAL_DOCKER
			PATH=$KIND/docker-without-sys-resource:$PATH
		fi
	fi
}
