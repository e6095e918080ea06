#!/usr/bin/env bash
#
# Prints the name of a node image for kind that is on this machine's Docker engine, and says on stderr how it got there:
# the ordinary kindest/node if a container registry answers, else one built here from Debian's packages and the programs
# of e2e/tools. Built once per machine: the image's tag, and the tar it was made of in $COUNTERSIGN_CACHE, are named after
# a hash of all that goes into it.
#
# Measured on two busy cores, the programs being there: 2.5 minutes; 45 s when the bare Debian is there too; 0.3 s when the
# image is.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"
# shellcheck source-path=SCRIPTDIR source=../tools/versions.sh
source "$CHECKOUT/e2e/tools/versions.sh"

STATE=$CACHE/node-image
SUITE=bookworm # systemd 252, the last one that boots where the machine has only cgroup v1
PACKAGES=systemd,systemd-sysv,dbus,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2
PACKAGES+=,bash,ca-certificates,jq,procps,runc,containernetworking-plugins,ipset
PROGRAMS=(containerd containerd-shim-runc-v2 ctr crictl kubeadm kubelet kubectl kube-apiserver kube-controller-manager
	kube-scheduler kube-proxy etcd coredns pause kind kube-router)

# step WHAT COMMAND...: says what it does, does it, and says how long that took.
step() {
	local what=$1 began=$SECONDS
	shift
	say "node image: $what"
	"$@"
	say "node image: done after $((SECONDS - began)) s"
}

# kind_module: where the Go cache has kind's sources.
kind_module() {
	(cd / && go mod download -json "sigs.k8s.io/kind@$KIND_VERSION") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

# ordinary_image: the image that this kind was tested with, if a registry answers within ten seconds. Not where
# SYS_RESOURCE is withheld, since only our own image can run there.
ordinary_image() {
	local image
	[[ $SYS_RESOURCE == granted ]] || return 1
	image=$(grep -o 'kindest/node:[^"]*' "$(kind_module)/pkg/apis/config/defaults/image.go")
	docker image inspect "$image" >/dev/null 2>&1 || {
		timeout 10 docker manifest inspect "$image" >/dev/null 2>&1 || return 1
		say "a container registry answers: pulling $image"
		docker pull --quiet "$image" >/dev/null || return 1
	}
	echo "$image"
}

# content_key: the programs are named by their place in the cache, which is named after what made them.
content_key() {
	local program
	{
		cat "$KIND/node-image.sh" "$KIND"/node/*
		echo "$SYS_RESOURCE $KIND_VERSION"
		for program in "${PROGRAMS[@]}"; do readlink "$CHECKOUT/target/tools/$program"; done
	} | sha256sum | cut -c 1-12
}

build() {
	local image=$1 tar=$2 root
	[[ $EUID == 0 ]] || fail "no container registry answers, and only root can build a node image of our own"
	if [[ ! -e $tar ]]; then
		command -v jq >/dev/null || install_packages "a node image is edited with jq" jq
		WORK=$(mktemp -d "$STATE/work.XXXXXX")
		trap 'rm -rf "$WORK"' EXIT
		root=$WORK/root
		step "a small Debian $SUITE (about 100 s, 1 s when it was made before)" unpack_debian "$root"
		step "what kind's base image adds" add_base_files "$root"
		step "the programs" add_programs "$root"
		step "the images of the control plane (about 30 s)" add_images "$root"
		step "packing" pack "$root" "$tar"
	fi
	step "loading $image into Docker (about 10 s)" import "$image" "$tar"
}

unpack_debian() {
	local root=$1 base
	base=$STATE/debian-$SUITE-$(sha256sum <<<"$PACKAGES" | cut -c 1-12).tar
	if [[ ! -e $base ]]; then
		command -v debootstrap >/dev/null || install_packages "a node image is built from Debian's packages" debootstrap
		debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root" >"$STATE/debootstrap.log" 2>&1 || {
			tail -n 20 "$STATE/debootstrap.log" "$root/debootstrap/debootstrap.log" >&2
			fail "debootstrap failed"
		}
		rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
		tar -C "$root" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf "$base.new" .
		mv "$base.new" "$base"
		rm -rf "$root"
	fi
	mkdir -p "$root"
	tar -C "$root" -xpf "$base"
}

# add_base_files: the files of kind's images/base, and what its Dockerfile does once the packages are in.
add_base_files() {
	local root=$1 files
	files=$(kind_module)/images/base/files
	cp -r "$files/etc" "$files/kind" "$root/"
	cp -r "$files/usr/local/bin" "$root/usr/local/"
	# The module cache is read-only, and knows no executable files.
	chmod -R u+w "$root/etc" "$root/kind" "$root/usr/local/bin"
	chmod 0755 "$root"/usr/local/bin/* "$root"/kind/bin/*

	rm -f "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
		"$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
		"$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
	echo "ReadKMsg=no" >>"$root/etc/systemd/journald.conf"
	chroot "$root" systemctl enable --quiet kubelet.service containerd.service undo-mount-hacks.service
	# It would register programs with the machine's one kernel.
	chroot "$root" systemctl mask --quiet systemd-binfmt.service

	mkdir -p "$root/etc/kubernetes/manifests" "$root/opt/cni" "$root/kind/manifests"
	ln -s /usr/lib/cni "$root/opt/cni/bin"
	cp "$KIND"/node/default-*.yaml "$root/kind/manifests/"
	cat "$KIND/node/kube-router.yaml" >>"$root/kind/manifests/default-cni.yaml"
	echo -n "$KUBERNETES_VERSION" >"$root/kind/version"

	# A container starts with kind's hook, which hides the machine's identity, and without limits of its own.
	ctr oci spec |
		jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
			>"$root/etc/containerd/cri-base.json"
	replace "$root/etc/containerd/config.toml" 'sandbox_image = ".*"' "sandbox_image = \"$(kubeadm_image pause)\""
	if [[ $SYS_RESOURCE == withheld ]]; then
		do_without_sys_resource "$root"
	fi
}

# do_without_sys_resource: without that capability nobody may make a process harder to kill, and our docker wrapper's
# containers get the control groups read-only, which --privileged would not.
do_without_sys_resource() {
	local root=$1
	replace "$root/etc/containerd/config.toml" 'restrict_oom_score_adj = false' 'restrict_oom_score_adj = true'
	replace "$root/usr/local/bin/entrypoint" '^# validate state$' "$(
		cat <<-'END'
			findmnt -lno target -R /sys/fs/cgroup | while read -r mount; do mount -o remount,bind,rw "$mount"; done\
			# validate state
		END
	)"
}

# replace FILE PATTERN TEXT: sed, but a pattern that is not there is an error, as when kind changes its files.
replace() {
	grep -q -- "$2" "$1" || fail "$1 has no line like '$2': does this kind need another edit?"
	sed -i -e "s~$2~$3~" "$1"
}

# kubeadm_image NAME: the full name of the one image of the control plane that ends so.
kubeadm_image() {
	kubeadm config images list --kubernetes-version "$KUBERNETES_VERSION" | grep "/$1:"
}

add_programs() {
	local root=$1 tools=$CHECKOUT/target/tools
	cp -L "$tools"/{containerd,containerd-shim-runc-v2,ctr,crictl} "$root/usr/local/bin/"
	cp -L "$tools"/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
}

# add_images: the control plane's images, each made FROM scratch under the name that kubeadm will ask for, then put into
# the node's containerd, so that a cluster pulls nothing.
add_images() {
	local root=$1 images=() name
	[[ $(kubeadm_image coredns) == *":$COREDNS_VERSION" ]] ||
		fail "kubeadm wants $(kubeadm_image coredns), e2e/tools/versions.sh has coredns $COREDNS_VERSION"

	for name in kube-apiserver kube-controller-manager kube-scheduler etcd coredns pause; do
		image_of_one_program "$(kubeadm_image "$name")" "$name"
		images+=("$(kubeadm_image "$name")")
	done
	image_with_network_tools "$root" "$(kubeadm_image kube-proxy)" kube-proxy
	image_with_network_tools "$root" countersign.dev/pod-network:v1 kubectl "$KIND/node/pod-network.sh"
	image_with_network_tools "$root" countersign.dev/kube-router:v1 kube-router "$KIND/node/kube-router.sh"
	images+=("$(kubeadm_image kube-proxy)" countersign.dev/pod-network:v1 countersign.dev/kube-router:v1)

	docker save --output "$WORK/images.tar" "${images[@]}"
	docker image rm --force "${images[@]}" >/dev/null # their names belong to others; the node's copy is the one we want
	import_into_containerd "$root/var/lib/containerd" "$WORK/images.tar"
}

# image_of_one_program IMAGE NAME: kubeadm's manifests call most programs by their bare name; coredns and pause they call
# by no name at all.
image_of_one_program() {
	local image=$1 name=$2 context=$WORK/images/$2 entrypoint=
	mkdir -p "$context/usr/local/bin" "$context/tmp"
	cp -L "$CHECKOUT/target/tools/$name" "$context/usr/local/bin/"
	case $name in coredns | pause) entrypoint="ENTRYPOINT [\"/usr/local/bin/$name\"]" ;; esac
	build_image "$image" "$context" "$entrypoint"
}

# image_with_network_tools ROOT IMAGE PROGRAM [SCRIPT]: a program that calls iptables and ip, with those and their
# libraries. SCRIPT is what it runs, if not the program.
image_with_network_tools() {
	local root=$1 image=$2 program=$3 script=${4:-} context=$WORK/images/$3
	local entrypoint="" plugins
	mkdir -p "$context"/{usr/local/bin,run,tmp,etc}
	copy_with_libraries "$root" "$context" /usr/sbin/xtables-nft-multi /usr/sbin/nft /usr/sbin/ip /usr/sbin/ipset \
		/usr/sbin/conntrack /bin/bash /bin/sleep /bin/cat /bin/mv
	copy_links_to "$root" "$context" xtables-nft-multi
	# The matches of iptables are plugins, some with libraries of their own: without libm, kube-proxy gets along until
	# the first Service with two endpoints.
	mapfile -t plugins < <(cd "$root" && find usr/lib/*/xtables -name '*.so' -printf '/%p\n')
	copy_with_libraries "$root" "$context" "${plugins[@]}"
	cp -L "$CHECKOUT/target/tools/$program" "$context/usr/local/bin/"
	if [[ -n $script ]]; then
		cp "$script" "$KIND/node/kubeconfig.sh" "$context/usr/local/bin/"
		chmod 0755 "$context/usr/local/bin/${script##*/}"
		entrypoint="ENTRYPOINT [\"/usr/local/bin/${script##*/}\"]"
	fi
	build_image "$image" "$context" "$entrypoint"
}

copy_with_libraries() {
	local root=$1 context=$2 file
	shift 2
	# A link in there may start with /, and means the node's file, not this machine's: /usr/sbin/ip is one.
	while read -r file; do
		mkdir -p "$context${file%/*}"
		cp "$root$(chroot "$root" readlink --canonicalize-existing "$file")" "$context$file"
	done < <({
		printf '%s\n' "$@"
		chroot "$root" ldd "$@" | sed -n 's/^\s\+\(.* => \)\?\(\/[^ ]*\) (.*/\2/p'
	} | sort -u)
}

# copy_links_to ROOT CONTEXT PROGRAM: iptables, iptables-save and their kin are links to one program.
copy_links_to() {
	local root=$1 context=$2 program=$3 link name
	for link in "$root"/usr/sbin/*-nft "$root"/usr/sbin/*-nft-{save,restore}; do
		[[ $(readlink "$link") == "$program" ]] || continue
		name=${link##*/}
		ln -sf "$program" "$context/usr/sbin/$name"
		ln -sf "$program" "$context/usr/sbin/${name/-nft/}"
	done
}

build_image() {
	local image=$1 context=$2 entrypoint=$3
	printf 'FROM scratch\nCOPY . /\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n%s\n' "$entrypoint" >"$WORK/Dockerfile"
	docker build --quiet --tag "$image" --file "$WORK/Dockerfile" "$context" >/dev/null 2>"$WORK/build.log" || {
		cat "$WORK/build.log" >&2
		fail "could not build $image"
	}
}

# import_into_containerd DIRECTORY TAR: runs a containerd over DIRECTORY for as long as that takes. What would look for
# a network, a runtime or a system to change is off.
import_into_containerd() {
	local directory=$1 tar=$2 socket=$WORK/containerd.sock daemon
	cat >"$WORK/containerd.toml" <<-END
		version = 3
		root = "$directory"
		state = "$WORK/containerd-state"
		disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
		  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
		[grpc]
		  address = "$socket"
		[ttrpc]
		  address = "$socket.ttrpc"
	END
	containerd --config "$WORK/containerd.toml" >"$WORK/containerd.log" 2>&1 {lock}>&- &
	daemon=$!
	wait_until 20 ctr --address "$socket" version >/dev/null 2>&1 || true
	ctr --address "$socket" --namespace k8s.io images import --label=io.cri-containerd.pinned=pinned \
		--all-platforms --no-unpack "$tar" >>"$WORK/containerd.log" 2>&1 || {
		tail -n 20 "$WORK/containerd.log" >&2
		kill "$daemon"
		fail "could not put the control plane's images into the node's containerd"
	}
	kill "$daemon"
	wait "$daemon" || true
}

pack() {
	local root=$1 tar=$2
	tar -C "$root" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf "$tar.new" .
	mv "$tar.new" "$tar"
}

import() {
	local image=$1 tar=$2 files
	files=$(docker import "$tar")
	docker build --quiet --tag "$image" - >/dev/null 2>"$STATE/import.log" <<-END || {
		FROM $files
		ENV container=docker
		STOPSIGNAL SIGRTMIN+3
		ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
	END
		cat "$STATE/import.log" >&2
		fail "could not build $image"
	}
	# The tar is for an engine that has lost the image. One is enough: it has 1 GB, and is made anew in half a minute.
	find "$STATE" -name 'node-*.tar' ! -path "$tar" -delete
}

main() {
	local key image
	umask 022 # what is packed here is for every user of the node
	mkdir -p "$STATE"
	use_tools apiserver cluster
	use_docker
	hold_lock "$STATE/lock" "the node image"
	if image=$(ordinary_image); then
		echo "$image"
		return
	fi
	key=$(content_key)
	image=countersign/kind-node:$key
	docker image inspect "$image" >/dev/null 2>&1 || build "$image" "$STATE/node-$key.tar"
	echo "$image"
}

main "$@"
