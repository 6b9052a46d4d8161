import java.io.File;
import java.io.FileOutputStream;
import java.util.concurrent.CountDownLatch;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.yarn.conf.YarnConfiguration;
import org.apache.hadoop.yarn.server.MiniYARNCluster;

/**
 * HDFS, and YARN where "yarn" is asked for, in the foreground: base folder, port of the name node, folder for
 * the settings of clients. Says "ready" and where the name node shows its files by HTTP.
 */
public class RunHadoop {
    public static void main(String[] args) throws Exception {
        try {
            start(args);
        } catch (Throwable failure) { // threads of what is up already would keep the process
            failure.printStackTrace();
            System.exit(1);
        }
        new CountDownLatch(1).await();
    }

    private static void start(String[] args) throws Exception {
        Configuration conf = new Configuration();
        conf.set(MiniDFSCluster.HDFS_MINIDFS_BASEDIR, args[0] + "/dfs");
        conf.setInt("dfs.replication", 1);
        MiniDFSCluster files = new MiniDFSCluster.Builder(conf)
            .nameNodePort(Integer.parseInt(args[1])).numDataNodes(1).build();
        files.waitActive();
        Configuration clients = new Configuration(false);
        clients.set("fs.defaultFS", files.getURI().toString());
        write(clients, args[2], "core-site.xml");
        if (args.length > 3 && args[3].equals("yarn")) {
            write(yarn(files.getConfiguration(0)), args[2], "yarn-site.xml");
        }
        System.out.println("ready " + files.getHttpUri(0));
    }

    private static Configuration yarn(Configuration files) throws Exception {
        YarnConfiguration conf = new YarnConfiguration(files);
        conf.setInt("yarn.minicluster.yarn.nodemanager.resource.memory-mb", 6144);
        conf.setInt("yarn.scheduler.minimum-allocation-mb", 128);
        conf.set("yarn.scheduler.capacity.root.queues", "default");
        conf.set("yarn.scheduler.capacity.root.default.capacity", "100");
        conf.setBoolean("yarn.nodemanager.vmem-check-enabled", false);
        conf.setBoolean("yarn.nodemanager.pmem-check-enabled", false);
        // Where tests run, the disk may be fuller than YARN likes.
        conf.set("yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage", "99.9");
        MiniYARNCluster nodes = new MiniYARNCluster("headrace", 1, 1, 1);
        nodes.init(conf);
        nodes.start();
        if (!nodes.waitForNodeManagersToConnect(60_000)) {
            throw new IllegalStateException("the node manager did not connect");
        }
        Configuration clients = new Configuration(false); // not all of it: the rest names classes of tests
        for (String name : new String[] {"address", "scheduler.address", "webapp.address"}) {
            name = "yarn.resourcemanager." + name;
            clients.set(name, nodes.getConfig().get(name));
        }
        return clients;
    }

    private static void write(Configuration conf, String folder, String name) throws Exception {
        try (FileOutputStream file = new FileOutputStream(new File(folder, name))) {
            conf.writeXml(file);
        }
    }
}
