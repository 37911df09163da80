// Java's two clients: `java Probe CLIENT CA-FILE`, jobs in lines: NON-PROXY-HOSTS TAB FOLDER TAB URL.
// CLIENT: url (HttpURLConnection) or http (java.net.http). NON-PROXY-HOSTS "-": as net.properties has it.
import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.*;
import java.time.Duration;
import javax.net.ssl.*;

public class Probe {
    public static void main(String[] args) throws Exception {
        SSLContext tls = trusting(args[1]);
        HttpsURLConnection.setDefaultSSLSocketFactory(tls.getSocketFactory());
        BufferedReader jobs = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = jobs.readLine()) != null; ) {
            String[] job = line.split("\t", 3);
            if (job[0].equals("-")) System.clearProperty("http.nonProxyHosts");
            else System.setProperty("http.nonProxyHosts", job[0]);
            try {
                if (args[0].equals("url")) {
                    HttpURLConnection one = (HttpURLConnection) new URL(job[2]).openConnection();
                    one.setConnectTimeout(30000);
                    one.setReadTimeout(30000);
                    one.setRequestProperty("Connection", "close");
                    one.getResponseCode();
                    one.disconnect();
                } else {
                    // A client of its own for each: it keeps connections.
                    java.net.http.HttpClient.newBuilder().sslContext(tls)
                        .connectTimeout(Duration.ofSeconds(30))
                        .version(java.net.http.HttpClient.Version.HTTP_1_1).build()
                        .send(java.net.http.HttpRequest.newBuilder(new URI(job[2]))
                            .timeout(Duration.ofSeconds(30)).build(),
                            java.net.http.HttpResponse.BodyHandlers.discarding());
                }
            } catch (Exception e) {
                Files.writeString(Path.of(job[1], "said"), e.toString());
            }
            Files.createFile(Path.of(job[1], "done"));
        }
        System.exit(0);
    }

    static SSLContext trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream in = new FileInputStream(file)) {
            int number = 0;
            for (Certificate one : CertificateFactory.getInstance("X.509").generateCertificates(in))
                store.setCertificateEntry("ca" + number++, one);
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }
}
