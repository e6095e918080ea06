// Command peer is an agent in Go: e2e/agent's conversation by crypto/tls and go-spiffe. It answers whom it is allowed to,
// calls others at a steady rate, each time with a full handshake, and counts.
//
//	peer --identity DIR --listen ADDRESS --status ADDRESS --rate N --allow ID ... --call NAME=ADDRESS=ID ...
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// On a busy machine a handshake may wait long. That is no failure of a certificate.
const patience = 20 * time.Second

// Answer is what a server says to "hello".
type Answer struct {
	IAm        string `json:"i_am"`
	IAccepted  string `json:"i_accepted"`
	WithSerial string `json:"with_serial"`
	ChainedTo  string `json:"chained_to"`
}

type target struct {
	name, to string
	expect   spiffeid.ID
}

func main() {
	var allow []spiffeid.ID
	var targets []target
	identity := flag.String("identity", "/var/run/countersign", "the directory with tls.crt, tls.key and ca.crt")
	listen := flag.String("listen", "", "where to accept mutual TLS")
	status := flag.String("status", "", "where to tell the counters")
	rate := flag.Float64("rate", 5, "calls a second to each")
	flag.Func("allow", "a SPIFFE ID that may call", func(text string) error {
		id, err := spiffeid.FromString(text)
		allow = append(allow, id)
		return err
	})
	flag.Func("call", "an agent to call, as name=host:port=spiffe-id", func(text string) error {
		parts := strings.SplitN(text, "=", 3)
		if len(parts) != 3 {
			return fmt.Errorf("%q is not name=host:port=spiffe-id", text)
		}
		id, err := spiffeid.FromString(parts[2])
		targets = append(targets, target{parts[0], parts[1], id})
		return err
	})
	flag.Parse()

	counters := newCounters()
	me := Files{*identity}
	config := tlsconfig.MTLSServerConfig(me, me, tlsconfig.AuthorizeOneOf(allow...))
	config.MinVersion = tls.VersionTLS13
	config.SessionTicketsDisabled = true
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	for _, target := range targets {
		go call(me, target, *rate, counters)
	}
	go counters.show(*status)
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(tls.Server(connection, config), me, counters)
	}
}

func serve(connection *tls.Conn, me Files, counters *Counters) {
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	if err := connection.Handshake(); err != nil {
		counters.refused(err)
		return
	}
	line, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil || line != "hello\n" {
		log.Printf("no conversation: %q %v", line, err)
		return
	}
	state := connection.ConnectionState()
	counters.accepted(state.DidResume)
	peer := state.PeerCertificates[0]
	who, _ := x509svid.IDFromCert(peer)
	root := state.PeerCertificates[len(state.PeerCertificates)-1].Issuer.String()
	self, err := me.GetX509SVID()
	if err != nil {
		log.Print(err)
		return
	}
	answer, _ := json.Marshal(Answer{self.ID.String(), who.String(), fmt.Sprintf("%x", peer.SerialNumber), root})
	_, _ = connection.Write(append(answer, '\n'))
}

func call(me Files, target target, rate float64, counters *Counters) {
	config := tlsconfig.MTLSClientConfig(me, me, tlsconfig.AuthorizeID(target.expect))
	config.MinVersion = tls.VersionTLS13
	pause := time.NewTicker(time.Duration(float64(time.Second) / rate))
	for range pause.C {
		serial, resumed, err := exchange(config, target)
		counters.called(target.name, serial, resumed, err)
	}
}

func exchange(config *tls.Config, target target) (serial string, resumed bool, err error) {
	plain, err := net.DialTimeout("tcp", target.to, patience)
	if err != nil {
		return "", false, err
	}
	connection := tls.Client(plain, config)
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	if _, err := connection.Write([]byte("hello\n")); err != nil {
		return "", false, err
	}
	line, err := bufio.NewReader(connection).ReadBytes('\n')
	if err != nil {
		return "", false, err
	}
	var answer Answer
	if err := json.Unmarshal(line, &answer); err != nil {
		return "", false, err
	}
	if answer.IAm != target.expect.String() {
		return "", false, fmt.Errorf("%s says that it is %s", target.name, answer.IAm)
	}
	state := connection.ConnectionState()
	return fmt.Sprintf("%x", state.PeerCertificates[0].SerialNumber), state.DidResume, nil
}
