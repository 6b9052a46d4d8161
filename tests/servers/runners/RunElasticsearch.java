import java.util.concurrent.CountDownLatch;
import org.codelibs.elasticsearch.runner.ElasticsearchClusterRunner;

/** One Elasticsearch node in the foreground: base folder, HTTP port, transport port. */
public class RunElasticsearch {
    public static void main(String[] args) throws Exception {
        ElasticsearchClusterRunner runner = new ElasticsearchClusterRunner();
        runner.onBuild((number, settings) -> {
            settings.put("http.port", args[1]);
            settings.put("transport.port", args[2]);
            settings.put("network.host", "127.0.0.1");
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
            settings.put("node.processors", 2);
            settings.putList("node.roles", "master", "data", "ingest");
        });
        runner.build(ElasticsearchClusterRunner.newConfigs()
            .basePath(args[0]).numOfNode(1).clusterName("headrace-" + args[1]).useLogger());
        new CountDownLatch(1).await();
    }
}
