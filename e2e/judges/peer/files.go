package main

import (
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// What follows is README.md's example, word for word: e2e/tests/tally.rs compares them.

// Files reads the identity anew for each handshake.
type Files struct{ Dir string }

// version is the directory that the kubelet last filled: its files belong together.
func (f Files) version() string {
	if dir, err := filepath.EvalSymlinks(filepath.Join(f.Dir, "..data")); err == nil {
		return dir
	}
	return f.Dir
}

// read reads once more if the kubelet put another version in its place meanwhile: it removes the old one.
func read[T any](f Files, from func(dir string) (T, error)) (T, error) {
	for {
		dir := f.version()
		if it, err := from(dir); err == nil || dir == f.version() {
			return it, err
		}
	}
}

func (f Files) GetX509SVID() (*x509svid.SVID, error) {
	return read(f, func(dir string) (*x509svid.SVID, error) {
		return x509svid.Load(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	})
}

func (f Files) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return read(f, func(dir string) (*x509bundle.Bundle, error) {
		return x509bundle.Load(td, filepath.Join(dir, "ca.crt"))
	})
}
