import java.util.Arrays;
import java.util.List;
import org.apache.spark.SparkConf;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaSparkContext;

/** Asks for what spark-defaults.conf says and prints the addresses that its tasks get. */
public class Job {
    public static void main(String[] arguments) {
        JavaSparkContext context = new JavaSparkContext(new SparkConf().setAppName("gpu"));
        List<String> found = context.parallelize(Arrays.asList(1, 2), 2)
            .map(n -> Arrays.toString(TaskContext.get().resources().apply("gpu").addresses()))
            .collect();
        System.out.println("ADDRESSES " + found);
        context.stop();
    }
}
