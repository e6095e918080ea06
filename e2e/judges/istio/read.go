package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/resource"
)

// object is one of Istio's kinds.
type object struct {
	schema resource.Schema
	config *config.Config
	// What is wrong with its fields, where they cannot be understood: then config is nil.
	unread   error
	name     string
	document []byte
}

// read gives Istio's objects, and the documents of all the others, which the analyzers look at: namespaces and pods.
func read(input []byte) (objects []object, others [][]byte, err error) {
	documents := kubeyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(input)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, others, nil
		}
		if err != nil {
			return nil, nil, err
		}
		var kind crd.IstioKind
		if err := kubeyaml.Unmarshal(document, &kind); err != nil {
			return nil, nil, fmt.Errorf("a document is no object: %w", err)
		}
		if kind.Kind == "" {
			continue
		}
		gvk := kind.GroupVersionKind()
		schema, isIstio := collections.Istio.FindByGroupVersionAliasesKind(resource.FromKubernetesGVK(&gvk))
		if !isIstio {
			others = append(others, document)
			continue
		}
		name := fmt.Sprintf("%s %s/%s", kind.Kind, kind.Namespace, kind.Name)
		config, err := crd.ConvertObjectInternal(schema, &kind, "cluster.local", strict)
		objects = append(objects, object{schema, config, err, name, document})
	}
}

// strict refuses a field that Istio does not know, which it would else drop.
func strict(schema resource.Schema, text string) (config.Spec, error) {
	spec, err := schema.NewInstance()
	if err != nil {
		return nil, err
	}
	return spec, config.ApplyJSONStrict(spec, text)
}
