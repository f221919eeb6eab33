// An app in Go: server APP CERTIFICATE KEY, its port on standard output.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	answer := func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			log.Print(err)
			return
		}
		for i := range body {
			body[i] = ^body[i]
		}
		body = append([]byte(os.Args[1]+"\n"), body...)
		response.Header().Set("Content-Length", fmt.Sprint(len(body)))
		response.Write(body)
	}
	log.Fatal(http.ServeTLS(listener, http.HandlerFunc(answer), os.Args[2], os.Args[3]))
}
