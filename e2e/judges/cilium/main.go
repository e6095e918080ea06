// Judges what is made of access policies for Cilium, by the checks that Cilium's agent itself makes of a policy before it takes it
// (Parse, and Sanitize in it): labels, ports, that every path and method is a regular expression it understands.
//
//	cilium-judge < objects     YAML or JSON documents
//
// It prints one JSON object, and exits with 0 whatever it finds. It fails on what it cannot read.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	cilium "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	"github.com/cilium/cilium/pkg/policy/api"
)

type report struct {
	// How many objects of Cilium's were looked at.
	Judged   int       `json:"judged"`
	Findings []finding `json:"findings"`
}

type finding struct {
	Object  string `json:"object"`
	Message string `json:"message"`
}

func main() {
	report, err := judge(os.Stdin)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cilium-judge:", err)
		os.Exit(1)
	}
}

func judge(input io.Reader) (report, error) {
	report := report{Findings: []finding{}}
	logger := slog.New(slog.DiscardHandler)
	documents := kubeyaml.NewYAMLReader(bufio.NewReader(input))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return report, nil
		}
		if err != nil {
			return report, err
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return report, err
		}
		var policy interface {
			metav1.Object
			Parse(*slog.Logger, string) (api.Rules, error)
		}
		switch kind.GroupVersionKind() {
		case cilium.SchemeGroupVersion.WithKind("CiliumNetworkPolicy"):
			policy = &cilium.CiliumNetworkPolicy{}
		case cilium.SchemeGroupVersion.WithKind("CiliumClusterwideNetworkPolicy"):
			policy = &cilium.CiliumClusterwideNetworkPolicy{}
		default:
			continue
		}
		report.Judged++
		// Strict: a field that Cilium does not know is refused, not dropped.
		if err = yaml.UnmarshalStrict(document, policy); err == nil {
			_, err = policy.Parse(logger, "default")
		}
		if err != nil {
			name := fmt.Sprintf("%s %s/%s", kind.Kind, policy.GetNamespace(), policy.GetName())
			report.Findings = append(report.Findings, finding{name, err.Error()})
		}
	}
}
