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

# One program a line: its name, its group, how it is built (a recipe_* function below), the package, and the seconds that a
# cold build of it took after those above it on two cores: they share most packages, so whoever comes first pays.
PROGRAMS="
etcd                    apiserver module    go.etcd.io/etcd/server/v3                                       70
kube-apiserver          apiserver module    k8s.io/kubernetes/cmd/kube-apiserver                           300
kube-controller-manager apiserver module    k8s.io/kubernetes/cmd/kube-controller-manager                   60
kubectl                 apiserver module    k8s.io/kubernetes/cmd/kubectl                                   40
kube-scheduler          cluster   module    k8s.io/kubernetes/cmd/kube-scheduler                            30
kubeadm                 cluster   module    k8s.io/kubernetes/cmd/kubeadm                                   30
kubelet                 cluster   module    k8s.io/kubernetes/cmd/kubelet                                   60
kube-proxy              cluster   module    k8s.io/kubernetes/cmd/kube-proxy                                20
pause                   cluster   pause     build/pause/linux/pause.c                                        1
kind                    cluster   published sigs.k8s.io/kind@$KIND_VERSION                                  14
crictl                  cluster   published sigs.k8s.io/cri-tools/cmd/crictl@$CRICTL_VERSION                 30
containerd              cluster   published github.com/containerd/containerd/v2/cmd/containerd@$CONTAINERD_VERSION 120
ctr                     cluster   published github.com/containerd/containerd/v2/cmd/ctr@$CONTAINERD_VERSION  20
containerd-shim-runc-v2 cluster   published github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@$CONTAINERD_VERSION 10
coredns                 cluster   published github.com/coredns/coredns@$COREDNS_VERSION                    150
helm                    helm      published helm.sh/helm/v3/cmd/helm@$HELM_VERSION                          60
zlint                   judges    published github.com/zmap/zlint/v3/cmd/zlint@$ZLINT_VERSION               20
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
	local version
	case $2 in
	module | pause) version=kubernetes-$KUBERNETES_VERSION ;;
	published) version=$1-${3##*@} ;;
	esac
	{
		echo "$1 $2 $3"
		flags_of "$1" "$2"
		[[ $2 == published ]] || cat "$TOOLS/go.mod" "$TOOLS/go.sum"
	} | sha256sum | { read -r hash _ && echo "$version-${hash:0:12}"; }
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
	(cd / && GOBIN=$output.bin go install -trimpath "$@" "$package")
	mv "$output.bin"/* "$output"
}

recipe_pause() {
	local source
	command -v gcc >/dev/null || fail "gcc is missing (Debian: apt-get install gcc libc6-dev)"
	source=$(cd "$TOOLS" && go mod download && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
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
		scratch=$(mktemp -d "$file.XXXXXX")
		"recipe_$recipe" "$scratch/$name" "$package" "${flags[@]}" || {
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

	while read -r name group recipe package seconds; do
		[[ -n $name ]] || continue
		[[ $wanted == *" $group "* || $wanted == *" $name "* ]] || continue
		file=$CACHE/$(key_of "$name" "$recipe" "$package")/$name
		[[ -x $file ]] || build "$name" "$recipe" "$package" "$seconds" "$file" </dev/null
		link "$name" "$file"
		count=$((count + 1))
	done <<<"$PROGRAMS"
	say "$count programs are in $LINKS"
}

main "$@"
