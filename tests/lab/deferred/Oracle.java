import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.TreeSet;
import org.apache.hadoop.yarn.api.records.Resource;
import org.apache.hadoop.yarn.conf.YarnConfiguration;
import org.apache.spark.SparkConf;
import org.apache.spark.deploy.yarn.ResourceRequestHelper;
import org.apache.spark.deploy.yarn.ResourceRequestHelper$;
import org.apache.spark.resource.ResourceProfile$;
import org.apache.spark.resource.ResourceUtils;
import org.apache.spark.util.Utils;
import scala.Option;
import scala.collection.JavaConverters;

/**
 * Reads configuration with Hadoop's and Spark's own classes. Each argument is a directory with
 * Hadoop's files and spark-defaults.conf; each gives a line for each question, its name first.
 */
public class Oracle {
    interface Question {
        Object ask() throws Exception;
    }

    static void answer(String directory, String name, Question question) {
        String text;
        try {
            text = String.valueOf(question.ask());
        } catch (Throwable error) {
            text = "REFUSED " + error;
        }
        System.out.println(directory + "\t" + name + "\t" + text.replace('\n', ' '));
    }

    public static void main(String[] directories) {
        for (String directory : directories) {
            YarnConfiguration yarn = new YarnConfiguration();
            answer(directory, "types", () -> {
                URL[] here = {new File(directory).toURI().toURL()};
                yarn.setClassLoader(new URLClassLoader(here));
                org.apache.hadoop.yarn.util.resource.ResourceUtils.resetNodeResources();
                org.apache.hadoop.yarn.util.resource.ResourceUtils.resetResourceTypes(yarn);
                return new TreeSet<>(
                    org.apache.hadoop.yarn.util.resource.ResourceUtils.getResourceTypes().keySet());
            });
            for (String key : new String[] {
                "yarn.nodemanager.resource-plugins",
                "yarn.nodemanager.container-executor.class",
                "yarn.nodemanager.local-dirs"}) {
                answer(directory, key, () -> yarn.get(key));
            }
            answer(directory, "calculator", () -> {
                org.apache.hadoop.conf.Configuration scheduler =
                    new org.apache.hadoop.conf.Configuration(false);
                scheduler.addResource(new File(directory, "capacity-scheduler.xml").toURI().toURL());
                return scheduler.get("yarn.scheduler.capacity.resource-calculator");
            });
            SparkConf spark = new SparkConf(false);
            answer(directory, "spark", () -> {
                JavaConverters.mapAsJavaMap(
                    Utils.getPropertiesFromFile(directory + "/spark-defaults.conf"))
                    .forEach(spark::set);
                return spark.get("spark.executor.cores", "unset");
            });
            answer(directory, "request", () -> {
                ResourceRequestHelper.validateResources(spark);
                Resource resource = Resource.newInstance(1024, 1);
                ResourceRequestHelper.setResourceRequests(
                    ResourceRequestHelper$.MODULE$.getYarnResourcesFromSparkResources(
                        "spark.executor", spark), resource);
                return resource;
            });
            answer(directory, "discovery", () -> ResourceUtils.getOrDiscoverAllResources(
                spark, "spark.executor", Option.empty()));
            answer(directory, "tasks", () -> {
                ResourceProfile$.MODULE$.clearDefaultProfile();
                return ResourceProfile$.MODULE$.getOrCreateDefaultProfile(spark).maxTasksPerExecutor(spark);
            });
        }
    }
}
