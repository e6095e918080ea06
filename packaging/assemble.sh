#!/usr/bin/env bash
#
#     packaging/assemble.sh BINARY DIRECTORY [LINK...]
#
# Makes DIRECTORY the root file system of an image for one program: the program in /usr/local/bin (also as LINK, if
# given), the shared libraries it needs and their loader, the machine's CA certificates, and a user to run as. No shell, no package
# manager, nothing that was not named here.
#
# The same program on the same libraries gives the same files, times and modes included, and so the same image layer.
set -euo pipefail

fail() {
	echo "assemble: $*" >&2
	exit 1
}

# copy_libraries PROGRAM ROOT: each to the path where the loader will look for it.
copy_libraries() {
	local program=$1 root=$2 libraries library
	libraries=$(ldd "$program" 2>&1) || {
		[[ $libraries == *"not a dynamic executable"* || $libraries == *"statically linked"* ]] && return
		fail "ldd cannot read $program: $libraries"
	}
	[[ $libraries != *"not found"* ]] || fail "$program needs a library that is not here: $libraries"
	while read -r library; do
		install -D --mode=0755 "$library" "$root$library"
	done < <(grep -o '/[^ ]*' <<<"$libraries")
}

main() {
	[[ $# -ge 2 ]] || fail "usage: packaging/assemble.sh BINARY DIRECTORY [LINK...]"
	local program=$1 root=$2 name=${1##*/} link certificates=/etc/ssl/certs/ca-certificates.crt
	shift 2
	[[ -x $program ]] || fail "$program is not there: cargo build --release makes it"

	rm -rf "$root"
	mkdir -p "$root/etc"
	install -D --mode=0755 "$program" "$root/usr/local/bin/$name"
	for link in "$@"; do ln -s "$name" "$root/usr/local/bin/$link"; done
	copy_libraries "$program" "$root"
	[[ ! -e $certificates ]] || install -D --mode=0644 "$certificates" "$root$certificates"
	printf 'root:x:0:0:root:/:/nonexistent\nnonroot:x:65532:65532:nonroot:/:/nonexistent\n' >"$root/etc/passwd"
	printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
	printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

	# Whoever builds has a umask and a clock of his own; neither may show.
	find "$root" -type d -exec chmod 0755 {} +
	chmod 0644 "$root"/etc/{passwd,group,nsswitch.conf}
	find "$root" -exec touch --no-dereference --date=@0 {} +
}

main "$@"
