// Command svid judges the files of an agent's Secret by Go's crypto/tls and SPIFFE's own library:
//
//	svid FOLDER SPIFFE-ID
//
// reads tls.crt, tls.key and ca.crt. It says nothing and exits 0 where all holds.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: svid FOLDER SPIFFE-ID")
		os.Exit(2)
	}
	if err := judge(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judge(folder, want string) error {
	file := func(name string) string { return filepath.Join(folder, name) }
	id, err := spiffeid.FromString(want)
	if err != nil {
		return fmt.Errorf("the SPIFFE ID: %w", err)
	}
	svid, err := x509svid.Load(file("tls.crt"), file("tls.key"))
	if err != nil {
		return fmt.Errorf("x509svid.Load: %w", err)
	}
	if svid.ID != id {
		return fmt.Errorf("the certificate is of %s, not of %s", svid.ID, id)
	}
	bundle, err := x509bundle.Load(id.TrustDomain(), file("ca.crt"))
	if err != nil {
		return fmt.Errorf("x509bundle.Load: %w", err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return fmt.Errorf("x509svid.Verify: %w", err)
	}
	member := tlsconfig.AuthorizeMemberOf(id.TrustDomain())
	err = handshake(tlsconfig.MTLSServerConfig(svid, bundle, member), tlsconfig.MTLSClientConfig(svid, bundle, member))
	if err != nil {
		return fmt.Errorf("handshake by go-spiffe: %w", err)
	}
	return plainTLS(file)
}

// plainTLS does what a Go program does that knows nothing of SPIFFE. Such a client checks a DNS
// name; the certificate need not have one, so it checks the chain itself.
func plainTLS(file func(string) string) error {
	pair, err := tls.LoadX509KeyPair(file("tls.crt"), file("tls.key"))
	if err != nil {
		return fmt.Errorf("tls.LoadX509KeyPair: %w", err)
	}
	pem, err := os.ReadFile(file("ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("ca.crt holds no certificate that crypto/x509 takes")
	}
	server := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	client := &tls.Config{
		Certificates:       []tls.Certificate{pair},
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			intermediates := x509.NewCertPool()
			for _, certificate := range state.PeerCertificates[1:] {
				intermediates.AddCert(certificate)
			}
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			})
			return err
		},
	}
	if err := handshake(server, client); err != nil {
		return fmt.Errorf("handshake by crypto/tls: %w", err)
	}
	return nil
}

// handshake connects both ends and sends one byte: with TLS 1.3 a client learns only from what it
// reads whether the server took its certificate.
func handshake(server, client *tls.Config) error {
	near, far := net.Pipe()
	refused := make(chan error, 1)
	go func() {
		connection := tls.Server(far, server)
		_, err := connection.Write([]byte{1})
		refused <- err
	}()
	connection := tls.Client(near, client)
	if _, err := connection.Read(make([]byte, 1)); err != nil {
		return errors.Join(err, <-refused)
	}
	return <-refused
}
