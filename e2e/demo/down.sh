#!/usr/bin/env bash
#
# make demo-down: deletes the demo's cluster and what demo.sh wrote. Programs, the node image and Docker stay, so that the next
# demo is quick.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

"$CHECKOUT/e2e/kind/down.sh" "$CLUSTER"
rm -rf "$STATE"
echo "the demo is gone; make demo brings it back"
