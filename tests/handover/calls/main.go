// Callers and a callee as daprd is one: gRPC over TLS, one pooled connection a caller, pings every 10 s, calls that were broken off
// repeated up to three times, a second apart, whether they are idempotent or not.
//
//	calls server CERTIFICATE KEY            prints its port; when its input ends, what it executed
//	calls client ADDRESS NAME CA CALLERS    prints "begun" when all callers have called; when its input ends, what came of the calls
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	method   = "/strait.test.Calls/Add"
	ping     = 10 * time.Second // as daprd
	retries  = 3                // as daprd
	retryGap = time.Second      // as daprd
	// Longer than any pause of a machine with a lot to do: only a call that is lost takes as long.
	patience = time.Minute
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "server" {
		server(os.Args[2], os.Args[3])
	} else if len(os.Args) == 6 && os.Args[1] == "client" {
		callers, err := strconv.Atoi(os.Args[5])
		check(err)
		clients(os.Args[2], os.Args[3], os.Args[4], callers)
	} else {
		fmt.Fprintln(os.Stderr, "usage: see main.go")
		os.Exit(2)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func report(what any) { check(json.NewEncoder(os.Stdout).Encode(what)) }

// executed counts how often each call ran: it must not run twice.
type executed struct {
	sync.Mutex
	times map[string]int
}

func (e *executed) add(ctx context.Context, id string) (string, error) {
	e.Lock()
	e.times[id]++
	e.Unlock()
	// Most answers come soon, some after the second of silence that makes a connection look quiet.
	wait := time.Duration(rand.Int63n(int64(20 * time.Millisecond)))
	if rand.Intn(20) == 0 {
		wait += 1500 * time.Millisecond
	}
	time.Sleep(wait)
	return "added " + id + daprs, nil
}

// What daprd's calls and answers have around the app's own: the method, the status, the headers.
var daprs = strings.Repeat(".", 100)

func server(certificate, key string) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	counts := &executed{times: map[string]int{}}
	handle := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var id wrapperspb.StringValue
		if err := decode(&id); err != nil {
			return nil, err
		}
		answer, err := counts.add(ctx, strings.TrimSuffix(id.Value, daprs))
		return wrapperspb.String(answer), err
	}
	calls := grpc.NewServer(
		grpc.Creds(credentials.NewServerTLSFromCert(&pair)),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: ping / 2, PermitWithoutStream: true}),
	)
	calls.RegisterService(&grpc.ServiceDesc{
		ServiceName: "strait.test.Calls",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Add", Handler: handle}},
	}, counts)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() { check(calls.Serve(listener)) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	counts.Lock()
	twice := []string{}
	for id, times := range counts.times {
		if times > 1 {
			twice = append(twice, id)
		}
	}
	report(map[string]any{"executed": len(counts.times), "twice": twice})
}

// outcome is what came of the calls of all callers.
type outcome struct {
	sync.Mutex
	Answered int      `json:"answered"`
	Retried  int      `json:"retried"`
	Lost     []string `json:"lost"`
}

func clients(address, name, ca string, callers int) {
	pem, err := os.ReadFile(ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	result := &outcome{Lost: []string{}}
	stop := make(chan struct{})
	var begun, done sync.WaitGroup
	for caller := 0; caller < callers; caller++ {
		begun.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			connection, err := grpc.NewClient("passthrough:///"+address,
				grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: name, RootCAs: roots})),
				grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: ping, Timeout: patience, PermitWithoutStream: true}),
				grpc.WithDisableServiceConfig(),
			)
			check(err)
			defer connection.Close()
			for number := 0; ; number++ {
				result.call(connection, fmt.Sprintf("%d-%d", caller, number))
				if number == 0 {
					begun.Done()
				}
				// Gaps from none to three seconds: some are long enough to be noticed, most calls come while others are on.
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.Int63n(int64(3 * time.Second)))):
				}
			}
		}()
	}
	begun.Wait()
	fmt.Println("begun")
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(stop)
	done.Wait()
	report(result)
}

func (o *outcome) call(connection *grpc.ClientConn, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	for try := 0; try <= retries; try++ {
		var answer wrapperspb.StringValue
		err = connection.Invoke(ctx, method, wrapperspb.String(id+daprs), &answer)
		if err == nil && answer.Value != "added "+id+daprs {
			err = fmt.Errorf("another call's answer: %s", answer.Value)
		}
		if status.Code(err) != codes.Unavailable {
			break
		}
		o.Lock()
		o.Retried++
		o.Unlock()
		time.Sleep(retryGap)
	}
	o.Lock()
	defer o.Unlock()
	if err == nil {
		o.Answered++
	} else {
		o.Lost = append(o.Lost, fmt.Sprintf("%s: %v", id, err))
	}
}
