#!/usr/bin/env bash
#
# Writes what is generated and checked in: crds/ from the Rust types, the chart's copy of them, and manifests/install.yaml
# from the chart. tests/generated.rs fails when one of them is out of date.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

say() { printf 'generate: %s\n' "$*" >&2; }

e2e/tools/build.sh helm
say "crds/ from the Rust types (a cold build takes about 3 minutes on two cores)"
rm -rf crds charts/countersign/files/crds
mkdir -p crds charts/countersign/files
cargo run --quiet --package countersign -- crd --output crds
cp -r crds charts/countersign/files/crds
say "manifests/install.yaml from the chart"
packaging/install-yaml.sh >manifests/install.yaml.new
mv manifests/install.yaml.new manifests/install.yaml
