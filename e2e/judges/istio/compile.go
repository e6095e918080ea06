package main

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/labels"

	security "istio.io/api/security/v1beta1"
	"istio.io/istio/pilot/pkg/config/memory"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/security/authn"
	"istio.io/istio/pilot/pkg/security/authz/builder"
	"istio.io/istio/pilot/pkg/security/trustdomain"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/util/protomarshal"
)

const rootNamespace = "istio-system"

type compiled struct {
	// The mode of mutual TLS: STRICT, PERMISSIVE, DISABLE.
	MutualTLS string `json:"mutualTLS"`
	// Envoy's HTTP filters, in their order. None where no AuthorizationPolicy selects the pod: then everybody may call.
	HTTP []json.RawMessage `json:"http"`
}

// compile does what istiod does for an Envoy beside a pod: it chooses the policies, and turns them into filters.
func compile(objects []object, namespace string, of labels.Set) (compiled, error) {
	store := memory.Make(collections.Pilot)
	var peers []*config.Config
	for _, object := range objects {
		if object.unread != nil {
			return compiled{}, fmt.Errorf("%s: %w", object.name, object.unread)
		}
		if _, err := store.Create(*object.config); err != nil {
			return compiled{}, fmt.Errorf("%s: %w", object.name, err)
		}
		if spec, is := object.config.Spec.(*security.PeerAuthentication); is && object.config.Namespace == namespace {
			if labels.SelectorFromSet(spec.GetSelector().GetMatchLabels()).Matches(of) {
				peers = append(peers, object.config)
			}
		}
	}
	result := compiled{MutualTLS: authn.ComposePeerAuthentication(rootNamespace, peers).Mode.String(), HTTP: []json.RawMessage{}}

	environment := &model.Environment{ConfigStore: store, Watcher: meshwatcher.NewTestWatcher(nil)}
	policies := model.GetAuthorizationPolicies(environment)
	pod := model.PolicyMatcherFor(namespace, map[string]string(of), false).WithRootNamespace(rootNamespace)
	chosen := policies.ListAuthorizationPolicies(pod)
	// No aliases: a principal is of the trust domain that it names.
	filters := builder.New(trustdomain.NewBundle("", nil), nil, chosen, builder.Option{})
	if filters == nil {
		return result, nil
	}
	for _, filter := range filters.BuildHTTP() {
		text, err := protomarshal.Marshal(proto.Message(filter))
		if err != nil {
			return compiled{}, err
		}
		result.HTTP = append(result.HTTP, text)
	}
	return result, nil
}
