#!/usr/bin/env bash
#
# `make bench`: the operator's speed and size on a real API server, beside a bare client that does the same writes in the
# same run. Prints a table and writes target/bench/results.json.
#
#     e2e/bench/run.sh              2,000 identities, about 2 minutes
#     e2e/bench/run.sh 10000        as many as asked for
#     e2e/bench/run.sh pods         what the admission policies cost a pod, with 5,000 identities in the cluster: about 4 minutes
#     e2e/bench/run.sh vault        how fast identities become Ready where OpenBao signs: about a minute
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/../.."

say() { printf 'bench: %s\n' "$*" >&2; }

e2e/tools/build.sh apiserver
[[ ${1:-} != vault ]] || e2e/judges/build.sh
say "release build (about 6 minutes cold on two cores)"
cargo build --release --locked --package countersign --package countersign-e2e
case ${1:-} in
	pods | vault) exec target/release/bench "--$1" ;;
	*) exec target/release/bench --identities "${1:-2000}" ;;
esac
