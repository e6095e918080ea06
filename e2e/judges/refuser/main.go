// Command refuser is an agent in Go that refuses the revoked as docs/revocation.md shows, by crypto/tls alone or by go-spiffe:
//
//	refuser serve  DIR ADDRESS        answers GET / over mutual TLS, by crypto/tls
//	refuser spiffe DIR ADDRESS        the same by go-spiffe
//	refuser call   DIR ADDRESS        calls once, by go-spiffe: exit code 0 if it was answered
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Files reads the identity anew for each handshake.
type Files struct{ Dir string }

func (f Files) GetX509SVID() (*x509svid.SVID, error) {
	return x509svid.Load(filepath.Join(f.Dir, "tls.crt"), filepath.Join(f.Dir, "tls.key"))
}

func (f Files) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return x509bundle.Load(td, filepath.Join(f.Dir, "ca.crt"))
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: refuser serve|spiffe|call DIR ADDRESS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(what, dir, address string) error {
	me := Files{dir}
	switch what {
	case "serve":
		return serve(address, &tls.Config{
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return plain(dir) },
		})
	case "spiffe":
		config := tlsconfig.MTLSServerConfig(me, me, NotRevoked(dir, tlsconfig.AuthorizeAny()))
		config.SessionTicketsDisabled = true // a resumed session is not checked again
		return serve(address, config)
	case "call":
		return call(address, tlsconfig.MTLSClientConfig(me, me, NotRevoked(dir, tlsconfig.AuthorizeAny())))
	}
	return errors.New("say serve, spiffe or call")
}

// plain is the configuration for one handshake, by crypto/tls alone.
func plain(dir string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		Certificates:           []tls.Certificate{pair},
		ClientCAs:              roots,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return CheckRevoked(dir, state.VerifiedChains)
		},
	}, nil
}

func serve(address string, config *tls.Config) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	return (&http.Server{Handler: hello, ReadHeaderTimeout: 10 * time.Second}).Serve(tls.NewListener(listener, config))
}

func call(address string, config *tls.Config) error {
	config.MinVersion = tls.VersionTLS13
	connection, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	fmt.Fprint(connection, "GET / HTTP/1.0\r\n\r\n")
	// The server looks at our certificate last: it has taken it if and only if it answers.
	_, err = connection.Read(make([]byte, 1))
	return err
}
