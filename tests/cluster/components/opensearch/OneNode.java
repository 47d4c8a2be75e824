import java.io.IOException;
import java.util.List;
import java.util.Map;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/** One node of OpenSearch on loopback: its folder, its HTTP port and the port of its own protocol, until SIGTERM. */
public final class OneNode extends Node {
    private OneNode(Settings settings) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "one"), List.of(Netty4Plugin.class), false);
    }

    public static void main(String[] arguments) throws Exception {
        Settings settings = Settings.builder()
            .put("path.home", arguments[0])
            .put("http.port", arguments[1])
            .put("transport.port", arguments[2])
            .put("network.host", "127.0.0.1")
            .put("discovery.type", "single-node")
            .put("cluster.name", "tests")
            .put("node.name", "one")
            .put("http.type", "netty4")
            .put("transport.type", "netty4")
            // A machine whose disk is nearly full would get a read-only index.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        OneNode node = new OneNode(settings);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        }));
        node.start();
        Thread.currentThread().join();
    }
}
