#!/usr/bin/env bash
#
# Writes what is generated and checked in: crds/ from the Rust types, the chart's copy of them, and manifests/install.yaml and
# manifests/quarantine/ from the chart. tests/generated.rs fails when one of them is out of date.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

say() { printf 'generate: %s\n' "$*" >&2; }

e2e/tools/build.sh helm
say "crds/ from the Rust types (a cold build takes about 3 minutes on two cores)"
mkdir -p target/crds
rm -f target/crds/*
cargo run --quiet --package countersign -- crd --output target/crds
for folder in crds charts/countersign/files/crds; do
	mkdir -p "$folder"
	rm -f "$folder"/*
	cp target/crds/* "$folder/"
done
say "manifests/install.yaml from the chart"
packaging/install-yaml.sh >manifests/install.yaml.new
mv manifests/install.yaml.new manifests/install.yaml
say "manifests/quarantine/ from the chart"
packaging/quarantine-yaml.sh manifests/quarantine
