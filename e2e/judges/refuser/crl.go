package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// What follows is docs/revocation.md's example, word for word: a test compares them.

// NotRevoked refuses whom crl.pem takes back, and asks next about the others.
func NotRevoked(dir string, next tlsconfig.Authorizer) tlsconfig.Authorizer {
	return func(id spiffeid.ID, chains [][]*x509.Certificate) error {
		return errors.Join(CheckRevoked(dir, chains), next(id, chains))
	}
}

// CheckRevoked gives an error unless one of the verified chains has no certificate that crl.pem takes back.
func CheckRevoked(dir string, chains [][]*x509.Certificate) error {
	lists, err := readLists(filepath.Join(dir, "crl.pem"))
	if err != nil {
		return err
	}
	err = errors.New("no chain was verified")
	for _, chain := range chains {
		if err = checkChain(chain, lists, time.Now()); err == nil {
			return nil
		}
	}
	return err
}

func checkChain(chain []*x509.Certificate, lists []*x509.RevocationList, now time.Time) error {
	for i, certificate := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		for _, list := range lists {
			if !bytes.Equal(list.RawIssuer, issuer.RawSubject) {
				continue
			}
			if err := list.CheckSignatureFrom(issuer); err != nil {
				return fmt.Errorf("the CRL of %s: %w", issuer.Subject, err)
			}
			if now.After(list.NextUpdate) {
				return fmt.Errorf("the CRL of %s has expired", issuer.Subject)
			}
			for _, entry := range list.RevokedCertificateEntries {
				if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
					return fmt.Errorf("the certificate with serial %x is revoked", certificate.SerialNumber)
				}
			}
		}
	}
	return nil
}

func readLists(file string) ([]*x509.RevocationList, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lists []*x509.RevocationList
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}
