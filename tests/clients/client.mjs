// A TLS client of Node's: client.mjs HOST PORT NAME CA PAYLOAD, the answer's body on standard output.
import { readFileSync } from "node:fs";
import { connect } from "node:tls";

const [host, port, servername, ca, payload] = process.argv.slice(2);
const body = readFileSync(payload);
const stream = connect({ host, port: Number(port), servername, ca: readFileSync(ca) }, () => {
  stream.write(
    `POST / HTTP/1.1\r\nHost: ${servername}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`,
  );
  stream.write(body);
});
const chunks = [];
stream.on("data", (chunk) => chunks.push(chunk));
stream.on("error", (error) => {
  console.error(error.message);
  process.exitCode = 1;
});
stream.on("end", () => {
  const answer = Buffer.concat(chunks);
  process.stdout.write(answer.subarray(answer.indexOf("\r\n\r\n") + 4));
});
