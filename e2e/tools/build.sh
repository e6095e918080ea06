#!/usr/bin/env bash
#
# Builds the programs that the tests run (etcd, the Kubernetes programs, kind, helm, ...) from the Go module registry, and
# links them into target/tools. Nothing here needs a container registry or a release page.
#
#     e2e/tools/build.sh              everything
#     e2e/tools/build.sh apiserver    what a lone API server needs: etcd, kube-apiserver, kube-controller-manager, kubectl
#     e2e/tools/build.sh cluster      what a kind cluster needs besides
#     e2e/tools/build.sh helm         helm
#     e2e/tools/build.sh judges       the linter that judges our certificates
#     e2e/tools/build.sh pause        one program, by its name
#
# A program is built once per version and machine, into $COUNTERSIGN_CACHE (default ~/.cache/countersign), and shared by all
# checkouts. e2e/tools/README.md says how to raise a version.
set -euo pipefail

TOOLS=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
CHECKOUT=$(cd "$TOOLS/../.." && pwd)
LINKS=$CHECKOUT/target/tools
CACHE=${COUNTERSIGN_CACHE:-$HOME/.cache/countersign}/tools
# shellcheck source-path=SCRIPTDIR source=versions.sh
source "$TOOLS/versions.sh"

# One program a line: its name, its group, how it is built (a recipe_* function below), the seconds that a cold build of it
# took after those above it on two cores (they share most packages, so whoever comes first pays), and the package.
PROGRAMS="
etcd                    apiserver module     70 go.etcd.io/etcd/server/v3
kube-apiserver          apiserver module    310 k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager apiserver module     90 k8s.io/kubernetes/cmd/kube-controller-manager
kubectl                 apiserver module     20 k8s.io/kubernetes/cmd/kubectl
kube-scheduler          cluster   module     10 k8s.io/kubernetes/cmd/kube-scheduler
kubeadm                 cluster   module     20 k8s.io/kubernetes/cmd/kubeadm
kubelet                 cluster   module     40 k8s.io/kubernetes/cmd/kubelet
kube-proxy              cluster   module     30 k8s.io/kubernetes/cmd/kube-proxy
pause                   cluster   pause       1 build/pause/linux/pause.c
kind                    cluster   published  15 sigs.k8s.io/kind@$KIND_VERSION
crictl                  cluster   published  50 sigs.k8s.io/cri-tools/cmd/crictl@$CRICTL_VERSION
containerd              cluster   published  80 github.com/containerd/containerd/v2/cmd/containerd@$CONTAINERD_VERSION
ctr                     cluster   published  10 github.com/containerd/containerd/v2/cmd/ctr@$CONTAINERD_VERSION
containerd-shim-runc-v2 cluster   published   5 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@$CONTAINERD_VERSION
coredns                 cluster   published 135 github.com/coredns/coredns@$COREDNS_VERSION
kube-router             cluster   published  80 github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@$KUBE_ROUTER_VERSION
helm                    helm      published  60 helm.sh/helm/v3/cmd/helm@$HELM_VERSION
zlint                   judges    published  15 github.com/zmap/zlint/v3/cmd/zlint@$ZLINT_VERSION
"

say() { printf 'tools: %s\n' "$*" >&2; }

fail() {
	say "$*"
	exit 1
}

# flags_of NAME RECIPE: the build flags of a program, one a line. They are part of its key.
flags_of() {
	case $2/$1 in
	module/etcd) echo "-ldflags=-s -w" ;;
	module/*) echo "-ldflags=-s -w $(kubernetes_stamps)" ;;
	published/containerd | published/ctr | published/containerd-shim-runc-v2)
		# These snapshotters want C libraries or kernel modules; a node uses overlayfs.
		echo "-tags=no_btrfs no_devmapper no_zfs no_aufs"
		echo "-ldflags=-s -w -X github.com/containerd/containerd/v2/version.Version=$CONTAINERD_VERSION"
		;;
	published/helm)
		echo "-ldflags=-s -w -X helm.sh/helm/v3/internal/version.version=$HELM_VERSION"
		;;
	published/crictl)
		echo "-ldflags=-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$CRICTL_VERSION"
		;;
	published/*) echo "-ldflags=-s -w" ;;
	esac
}

# kubectl and kubeadm refuse to work with a version that they cannot parse, so the stamps are no ornament. A module does not
# say which commit it was made of; the field wants 40 hex digits.
kubernetes_stamps() {
	local major minor package
	IFS=. read -r major minor _ <<<"${KUBERNETES_VERSION#v}"
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		echo -n "-X $package.gitVersion=$KUBERNETES_VERSION -X $package.gitMajor=$major -X $package.gitMinor=$minor "
		echo -n "-X $package.gitTreeState=clean -X $package.gitCommit=0000000000000000000000000000000000000000 "
		echo -n "-X $package.buildDate=$KUBERNETES_RELEASED "
	done
}

# key_of NAME RECIPE PACKAGE: the folder of the cache that holds this program: its version, and a hash of all that makes it
# but the Go toolchain (a newer Go is no reason to build for fifteen minutes).
key_of() {
	local version=$KUBERNETES_VERSION hash
	case $2/$1 in
	module/etcd) version=$(version_in_go_mod "$3") ;;
	published/*) version=${3##*@} ;;
	esac
	{
		echo "$1 $2 $3"
		flags_of "$1" "$2"
		[[ $2 == published ]] || cat "$TOOLS/go.mod" "$TOOLS/go.sum"
	} | sha256sum | { read -r hash _ && echo "$1-$version-${hash:0:12}"; }
}

# Each recipe builds one program as the file $1. The arguments after the package are its build flags.
recipe_module() {
	local output=$1 package=$2
	shift 2
	(cd "$TOOLS" && go build -trimpath "$@" -o "$output" "$package")
}

recipe_published() {
	local output=$1 package=$2
	shift 2
	# Outside any module, and into a folder of its own, since the program may be called otherwise than the package.
	(cd / && GOBIN=$output.bin go install -trimpath "$@" "$package") && mv "$output.bin"/* "$output"
}

recipe_pause() {
	local source
	command -v gcc >/dev/null || {
		echo "gcc is missing (Debian: apt-get install gcc libc6-dev)" >&2
		return 1
	}
	source=$(cd "$TOOLS" && go mod download k8s.io/kubernetes && go list -m -f '{{.Dir}}' k8s.io/kubernetes) &&
		gcc -Os -static -DVERSION="$KUBERNETES_VERSION" -o "$1" "$source/$2"
}

# build NAME RECIPE PACKAGE SECONDS FILE: makes FILE, whole or not at all. A run that finds another one building the same
# program waits for it.
build() {
	local name=$1 recipe=$2 package=$3 seconds=$4 file=$5 flags began=$SECONDS scratch
	mkdir -p "${file%/*}"
	exec {lock}>"$file.lock"
	flock --nonblock "$lock" || {
		say "waiting for another run that is building $name"
		flock "$lock"
	}
	if [[ ! -x $file ]]; then
		check_toolchain
		say "building $name (about $seconds s on two cores, once for this version)"
		mapfile -t flags < <(flags_of "$name" "$recipe")
		scratch=$file.building # nobody else uses it while we hold the lock; one that is there was interrupted
		rm -rf "$scratch"
		mkdir "$scratch"
		"recipe_$recipe" "$scratch/$name" "$package" "${flags[@]}" >"$scratch/log" 2>&1 || {
			# Without the list of what was downloaded.
			grep -v '^go: downloading ' "$scratch/log" >&2 || true
			rm -rf "$scratch"
			fail "could not build $name from $package: the messages above say why"
		}
		mv "$scratch/$name" "$file"
		rm -rf "$scratch"
		say "built $name in $((SECONDS - began)) s"
	fi
	exec {lock}>&-
}

check_toolchain() {
	command -v go >/dev/null || fail "Go is missing: install Go 1.26 or newer, then run this again"
}

# link NAME FILE: target/tools/NAME points to FILE. By a rename, since a test may be about to run the old one.
link() {
	[[ $LINKS/$1 -ef $2 ]] && return
	mkdir -p "$LINKS"
	ln -s "$2" "$LINKS/.$1.$$"
	mv -T "$LINKS/.$1.$$" "$LINKS/$1"
}

main() {
	local wanted=" ${*:-apiserver cluster helm judges} " word name group recipe package seconds file count=0
	for word in $wanted; do
		[[ $PROGRAMS == *[[:space:]]"$word "* ]] || fail "no such group or program: $word (apiserver, cluster, helm, judges)"
	done
	export CGO_ENABLED=0 GOWORK=off

	while read -r name group recipe seconds package; do
		[[ -n $name ]] || continue
		[[ $wanted == *" $group "* || $wanted == *" $name "* ]] || continue
		file=$CACHE/$(key_of "$name" "$recipe" "$package")/$name
		[[ -x $file ]] || build "$name" "$recipe" "$package" "$seconds" "$file" </dev/null
		link "$name" "$file"
		count=$((count + 1))
	done <<<"$PROGRAMS"
	# What is built is told on stderr; this line alone on stdout, for a caller who does not care to drop.
	echo "tools: $count programs are in $LINKS"
}

main "$@"
