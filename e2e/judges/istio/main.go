// Judges what is made of access policies for Istio, by Istio's own code. Objects come on stdin, as YAML or JSON documents.
//
//	istio-judge validate                   what istiod's validation and the analyzers of `istioctl analyze` find wrong with them
//	istio-judge compile NAMESPACE LABELS   what istiod would tell the Envoy of a pod with these labels (a=b,c=d)
//
// Both print one JSON object, and exit with 0 whatever they find. They fail on what they cannot read.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/labels"

	"istio.io/istio/pkg/log"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "istio-judge:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	// Istio's log says what is found once more.
	for _, scope := range log.Scopes() {
		scope.SetOutputLevel(log.NoneLevel)
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	objects, others, err := read(input)
	if err != nil {
		return err
	}
	var answer any
	switch {
	case len(arguments) == 1 && arguments[0] == "validate":
		answer, err = validate(objects, others)
	case len(arguments) == 3 && arguments[0] == "compile":
		var of labels.Set
		if of, err = labels.ConvertSelectorToLabelsMap(arguments[2]); err == nil {
			answer, err = compile(objects, arguments[1], of)
		}
	default:
		err = fmt.Errorf("usage: istio-judge validate | compile NAMESPACE LABELS")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}
