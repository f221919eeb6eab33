import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/** A TLS client of Java's: Client.java HOST PORT NAME CA PAYLOAD, the answer's body on standard output. */
class Client {
    public static void main(String[] arguments) throws Exception {
        String host = arguments[0], name = arguments[2];
        int port = Integer.parseInt(arguments[1]);
        byte[] body = Files.readAllBytes(Path.of(arguments[4]));
        String head = "POST / HTTP/1.1\r\nHost: " + name + "\r\nContent-Length: " + body.length
                + "\r\nConnection: close\r\n\r\n";
        SSLContext context = trusting(Path.of(arguments[3]));
        // Layered over a connected socket, so that the name goes into the SNI and the address to connect to does not.
        try (Socket plain = new Socket(host, port);
                SSLSocket stream = (SSLSocket) context.getSocketFactory().createSocket(plain, name, port, true)) {
            SSLParameters parameters = stream.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            stream.setSSLParameters(parameters);
            OutputStream out = stream.getOutputStream();
            out.write(head.getBytes(StandardCharsets.US_ASCII));
            out.write(body);
            out.flush();
            byte[] answer = stream.getInputStream().readAllBytes();
            int start = new String(answer, StandardCharsets.ISO_8859_1).indexOf("\r\n\r\n") + 4;
            System.out.write(answer, start, answer.length - start);
            System.out.flush();
        }
    }

    private static SSLContext trusting(Path file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream pem = Files.newInputStream(file)) {
            store.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
