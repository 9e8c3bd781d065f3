import org.apache.hadoop.metrics2.lib.DefaultMetricsSystem;
import org.apache.hadoop.service.Service;
import org.apache.hadoop.yarn.conf.YarnConfiguration;
import org.apache.hadoop.yarn.server.nodemanager.NodeManager;
import org.apache.hadoop.yarn.server.resourcemanager.ResourceManager;

/** A YARN cluster in one process, by the settings that are on its class path. */
public class Yarn {
  public static void main(String[] arguments) throws Exception {
    // Two servers in one process have metrics of the same names.
    DefaultMetricsSystem.setMiniClusterMode(true);
    for (Service server : new Service[] {new ResourceManager(), new NodeManager()}) {
      server.init(new YarnConfiguration());
      server.start();
    }
    Thread.currentThread().join();
  }
}
