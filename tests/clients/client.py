"""A TLS client of Python's: client.py HOST PORT NAME CA PAYLOAD, the answer's body on standard output."""

import socket
import ssl
import sys

host, port, name, ca, payload = sys.argv[1:]
with open(payload, "rb") as file:
    body = file.read()
context = ssl.create_default_context(cafile=ca)
with socket.create_connection((host, int(port))) as plain:
    with context.wrap_socket(plain, server_hostname=name) as stream:
        head = f"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        stream.sendall(head.encode() + body)
        answer = b""
        while chunk := stream.recv(65536):
            answer += chunk
sys.stdout.buffer.write(answer.partition(b"\r\n\r\n")[2])
