// An app in Node: server.mjs APP CERTIFICATE KEY, its port on standard output.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const [app, certificate, key] = process.argv.slice(2);
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk.map((byte) => byte ^ 0xff)));
  request.on("end", () => {
    const body = Buffer.concat([Buffer.from(`${app}\n`), ...chunks]);
    response.writeHead(200, { "Content-Length": body.length, Connection: "close" });
    response.end(body);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
