# The commands of this project. Each one calls a script or cargo, which can be called without make as well.

IMAGE ?= countersign.dev/countersign:$(shell sed -n 's/^appVersion: //p' charts/countersign/Chart.yaml)

.PHONY: help demo demo-down test check bench generate build image

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

demo: ## A kind cluster with a crew of agents: mutual TLS, who may call whom, new certificates, a new root CA, a stolen key
	@e2e/demo/demo.sh

demo-down: ## Remove what demo made
	@e2e/demo/down.sh

test: check ## Everything: unit, property, a real API server, a kind cluster (cold: about an hour, warm: about 17 minutes)
	@.ci/test

check: ## What can be told without running: format, clippy, licences, chart, layout, generated files
	@.ci/check

bench: ## 2,000 identities at once on a real API server beside a bare client; a table, and target/bench/results.json
	@e2e/bench/run.sh

generate: ## Write crds/, the chart's copy of them, and manifests/install.yaml
	@packaging/generate.sh

build: ## target/release/countersign, and kubectl-countersign beside it
	cargo build --release --locked --package countersign
	ln -sf countersign target/release/kubectl-countersign

image: build ## The operator's image, into the Docker engine that answers
	packaging/assemble.sh target/release/countersign target/image kubectl-countersign
	DOCKER_BUILDKIT=0 docker build --tag $(IMAGE) .
