#!/usr/bin/env bash
#
# Builds an image and loads it into every node of a cluster:
#
#     e2e/kind/image.sh NAME CONTEXT TAG
#
# CONTEXT is a directory with a Dockerfile, which starts FROM scratch: a test has no registry to pull a base from. Pods
# use the image with imagePullPolicy Never (or IfNotPresent, with a tag other than latest). About 2 s for a small image.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

main() {
	(($# == 3)) || fail "usage: e2e/kind/image.sh NAME CONTEXT TAG"
	local name=$1 context=$2 tag=$3 began=$SECONDS log
	use_tools kind
	use_docker
	mkdir -p "$CLUSTERS"
	log=$(mktemp)
	docker build --tag "$tag" "$context" >"$log" 2>&1 || {
		cat "$log" >&2
		fail "could not build $tag from $context"
	}
	rm "$log"
	kind load docker-image --quiet --name "$name" "$tag"
	say "image $tag is in cluster $name after $((SECONDS - began)) s"
}

main "$@"
