"""An app in Python: server.py APP CERTIFICATE KEY, its port on standard output."""

import socket
import ssl
import sys

app, certificate, key = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        plain, _ = listener.accept()
        try:
            with context.wrap_socket(plain, server_side=True) as stream, stream.makefile("rwb") as file:
                length = 0
                while (line := file.readline().strip()) != b"":
                    key_, _, value = line.partition(b": ")
                    if key_.lower() == b"content-length":
                        length = int(value)
                body = app.encode() + b"\n" + bytes(byte ^ 0xFF for byte in file.read(length))
                file.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        except OSError as error:
            print(error, file=sys.stderr)
