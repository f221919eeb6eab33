// A TLS client of Go's: client HOST PORT NAME CA PAYLOAD, the answer's body on standard output.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

func main() {
	host, port, name := os.Args[1], os.Args[2], os.Args[3]
	ca, body := read(os.Args[4]), read(os.Args[5])
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	stream, err := tls.Dial("tcp", net.JoinHostPort(host, port), &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		log.Fatal(err)
	}
	head := "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
	if _, err := stream.Write(append(fmt.Appendf(nil, head, name, len(body)), body...)); err != nil {
		log.Fatal(err)
	}
	answer, err := io.ReadAll(stream)
	if err != nil {
		log.Fatal(err)
	}
	_, content, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	os.Stdout.Write(content)
}

func read(file string) []byte {
	content, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	return content
}
