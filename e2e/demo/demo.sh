#!/usr/bin/env bash
#
# make demo: Countersign's main job on a real cluster, step by step. Run it again as often as you like: it reuses what is there.
#
#     COUNTERSIGN_CLUSTER   another kind cluster than countersign-demo
#     COUNTERSIGN_STATE     another folder than target/demo for the kubeconfig and what else it writes
#
# It ends with 0 if and only if everything it shows was as it should be, so the cluster test is this script too.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=root.sh
source "${BASH_SOURCE[0]%/*}/root.sh"
# shellcheck source-path=SCRIPTDIR source=access.sh
source "${BASH_SOURCE[0]%/*}/access.sh"
# shellcheck source-path=SCRIPTDIR source=revoke.sh
source "${BASH_SOURCE[0]%/*}/revoke.sh"

step "The programs: kind, Kubernetes, kubectl and Helm"
build_tools
step "A Docker engine and a kind cluster, $CLUSTER"
start_cluster
step "The operator and the agents, built from this checkout"
build_programs
step "Their images, into the cluster"
build_images
step "The operator, by Helm"
install_chart
step "A TrustDomain: one root of trust, $TRUST_DOMAIN"
declare_trust_domain
step "A crew of agents: planner -> retrieval, planner -> executor -> tools"
start_crew
step "Who has which identity"
show_identities
step "The planner's certificate, as OpenSSL reads it"
show_certificate
step "One mutual handshake, planner to retrieval, in six steps"
show_handshake
step "Who is refused"
show_refusals
step "Who may call whom"
show_access
step "A rotation under traffic"
show_rotation
step "The root CA is replaced under traffic"
show_new_root
step "A stolen key: retrieval is revoked under traffic"
show_revocation

kubeconfig=${KUBECONFIG#"$PWD/"}
cat <<END

All of it worked, in $SECONDS s. To look around:

    export KUBECONFIG=$kubeconfig PATH=\$PWD/target/tools:\$PATH
    kubectl get td,agid -A
    kubectl countersign trust demo
    kubectl countersign graph
    kubectl describe agid planner -n $NAMESPACE
    kubectl exec -n $NAMESPACE deploy/planner -- agent report
    kubectl logs -n $NAMESPACE deploy/tools --tail=5
    kubectl delete secret planner-identity -n $NAMESPACE; kubectl get secret planner-identity -n $NAMESPACE

To remove the cluster: make demo-down
END
