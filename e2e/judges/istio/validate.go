package main

import (
	"bytes"
	"fmt"
	"slices"

	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/diag"
	"istio.io/istio/pkg/config/analysis/local"
)

type report struct {
	// How many objects of Istio's were looked at.
	Judged   int       `json:"judged"`
	Findings []finding `json:"findings"`
}

type finding struct {
	// validation or analysis
	By      string `json:"by"`
	Level   string `json:"level"`
	Object  string `json:"object"`
	Message string `json:"message"`
}

// validate asks what istiod's webhook asks, and then the analyzers, for which namespaces and pods are among the documents.
func validate(objects []object, others [][]byte) (report, error) {
	report := report{Judged: len(objects), Findings: []finding{}}
	add := func(object, level string, err error) {
		if err != nil {
			report.Findings = append(report.Findings, finding{"validation", level, object, err.Error()})
		}
	}
	for _, object := range objects {
		if object.unread != nil {
			add(object.name, "Error", object.unread)
			continue
		}
		warning, err := object.schema.ValidateConfig(*object.config)
		add(object.name, "Warning", warning)
		add(object.name, "Error", err)
	}
	messages, err := analyze(objects, others)
	for _, message := range messages {
		report.Findings = append(report.Findings, finding{
			"analysis", message.Type.Level().String(), objectOf(message), message.String(),
		})
	}
	return report, err
}

// analyze gives what the analyzers say of Istio's objects. They look at namespaces and pods too, whether a sidecar is injected there and such,
// which is not asked here.
func analyze(objects []object, others [][]byte) (diag.Messages, error) {
	analyzer := local.NewSourceAnalyzer(analyzers.AllCombined(), "", "istio-system", nil)
	documents := others
	for _, object := range objects {
		documents = append(documents, object.document)
	}
	reader := local.ReaderSource{Name: "stdin", Reader: bytes.NewReader(bytes.Join(documents, []byte("\n---\n")))}
	if err := analyzer.AddTestReaderKubeSource([]local.ReaderSource{reader}); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	defer close(stop)
	result, err := analyzer.Analyze(stop)
	if err != nil {
		return nil, err
	}
	isOfObject := func(message diag.Message) bool {
		return slices.ContainsFunc(objects, func(each object) bool { return each.name == objectOf(message) })
	}
	return slices.DeleteFunc(result.Messages, func(message diag.Message) bool { return !isOfObject(message) }), nil
}

func objectOf(message diag.Message) string {
	if message.Resource == nil {
		return ""
	}
	metadata := message.Resource.Metadata
	return fmt.Sprintf("%s %s", metadata.Schema.Kind(), metadata.FullName)
}
