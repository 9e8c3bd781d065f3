import java.io.Reader;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.pinot.spi.services.ServiceRole;
import org.apache.pinot.tools.service.PinotServiceManager;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.ZooKeeperServer;

/** A Pinot cluster in one process. Arguments: its folder, with CONTROLLER.properties and so on; ZooKeeper's port. */
public class Pinot {
  private static final String HOST = "127.0.0.1";

  public static void main(String[] arguments) throws Exception {
    Path folder = Path.of(arguments[0]);
    int port = Integer.parseInt(arguments[1]);

    Path state = Files.createDirectories(folder.resolve("zookeeper"));
    ZooKeeperServer store = new ZooKeeperServer(state.toFile(), state.toFile(), 500);
    // The sessions of a process that was killed are to be over soon: they hold the places of those that come after it.
    store.setMinSessionTimeout(500);
    store.setMaxSessionTimeout(4000);
    ServerCnxnFactory.createFactory(new InetSocketAddress(HOST, port), 0).startup(store);

    // Without a REST interface of its own.
    PinotServiceManager manager = new PinotServiceManager(HOST + ":" + port, "fabric-beam", HOST, -1);
    manager.start();
    for (ServiceRole role : new ServiceRole[] {ServiceRole.CONTROLLER, ServiceRole.BROKER, ServiceRole.SERVER}) {
      manager.startRole(role, settings(folder.resolve(role + ".properties")));
    }
    Thread.currentThread().join();
  }

  private static Map<String, Object> settings(Path file) throws Exception {
    Properties properties = new Properties();
    try (Reader reader = Files.newBufferedReader(file)) {
      properties.load(reader);
    }
    Map<String, Object> settings = new HashMap<>();
    properties.forEach((name, value) -> settings.put((String) name, value));
    return settings;
  }
}
