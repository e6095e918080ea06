package main

import (
	"encoding/json"
	"log"
	"net"
	"sync"
)

// Counters are told in the form of `agent report`, as far as e2e/src/peers reads it.
type Counters struct {
	lock   sync.Mutex
	report report
}

type report struct {
	Calls    map[string]*calls `json:"calls"`
	Accepted int               `json:"handshakes_accepted"`
	Refused  int               `json:"refused"`
	Refusals []string          `json:"refusals"`
	Resumed  int               `json:"resumed"`
}

type calls struct {
	Tried int `json:"tried"`
	// Since the first that succeeded: before that, the other agent was still starting.
	Failed      int            `json:"failed"`
	LastFailure string         `json:"last_failure"`
	Peers       []*certificate `json:"peers"`
}

type certificate struct {
	Serial     string `json:"serial"`
	Handshakes int    `json:"handshakes"`
}

func newCounters() *Counters {
	return &Counters{report: report{Calls: map[string]*calls{}, Refusals: []string{}}}
}

func (c *Counters) called(name, serial string, resumed bool, err error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	it := c.report.Calls[name]
	if it == nil {
		it = &calls{Peers: []*certificate{}}
		c.report.Calls[name] = it
	}
	if err != nil {
		if it.Tried > 0 {
			log.Printf("%s: %v", name, err)
			it.Tried++
			it.Failed++
			it.LastFailure = err.Error()
		}
		return
	}
	it.Tried++
	c.resumed(resumed)
	for _, met := range it.Peers {
		if met.Serial == serial {
			met.Handshakes++
			return
		}
	}
	it.Peers = append(it.Peers, &certificate{serial, 1})
}

func (c *Counters) accepted(resumed bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.report.Accepted++
	c.resumed(resumed)
}

func (c *Counters) refused(err error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	log.Printf("refused: %v", err)
	c.report.Refused++
	c.report.Refusals = append(c.report.Refusals, err.Error())
}

func (c *Counters) resumed(it bool) {
	if it {
		c.report.Resumed++
	}
}

func (c *Counters) show(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		c.lock.Lock()
		text, _ := json.Marshal(c.report)
		c.lock.Unlock()
		_, _ = connection.Write(text)
		connection.Close()
	}
}
