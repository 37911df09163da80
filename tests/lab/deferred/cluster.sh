# A cluster of one node, below an overlay of this machine: sh -ec cluster.sh WORK JARS CODE
# YARN's files are the installer's; nvidia-smi, the native container-executor and the cgroup
# directory are doubles. Everything it has to say is in WORK/out.
work=$1 jars=$2 code=$3
root=$work/root
if [ -z "$INSIDE" ]; then
    mkdir -p "$work/upper" "$work/inner" "$root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/inner" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/devices"
    mkdir -p "$root$work/out"
    mount --bind "$work/out" "$root$work/out"
    ip link set lo up
    INSIDE=1 exec chroot "$root" sh -e "$work/cluster.sh" "$work" "$jars" "$code"
fi
out=$work/out
mkdir -p /etc/hadoop/conf /etc/spark/conf /hadoop/yarn/nm-local-dir /hadoop/yarn/logs \
    /usr/lib/hadoop-yarn/bin /usr/lib/airlock
getent passwd yarn >/dev/null || useradd -r -U yarn
cp "$work/site.xml" /etc/hadoop/conf/yarn-site.xml
cp "$work/core-site.xml" "$work/capacity-scheduler.xml" "$work/log4j2.properties" /etc/hadoop/conf
cp "$code/fixtures/smi.py" /usr/bin/nvidia-smi
cp "$work/cards.json" /etc/nvidia-smi-double.json
executor=/usr/lib/hadoop-yarn/bin/container-executor
cp "$code/tests/lab/deferred/container-executor" $executor
chown root:yarn $executor
chmod 6755 $executor /usr/bin/nvidia-smi
cd "$code"
PYTHONPATH=. python3 -m installers gpu-config --metadata "$work/metadata.json" --patience 1 \
    >"$out/config" 2>&1
cp /var/lib/airlock/gpu-config-result.json "$out"
cd /
opens="--add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED"
opens="$opens --add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED"
java="java -Xmx640m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 $opens"
export HADOOP_YARN_HOME=/usr/lib/hadoop-yarn HADOOP_CONF_DIR=/etc/hadoop/conf SPARK_HOME=/tmp
server=org.apache.hadoop.yarn.server

# What is broken: the NodeManager must end by itself, and say why.
for case in "$work"/broken/*; do
    name=$(basename "$case")
    cp -r /etc/hadoop/conf "/tmp/$name"
    . "$case"
    timeout 90 sh -c "exec $java -cp '/tmp/$name:$jars/*' $server.nodemanager.NodeManager" \
        >"$out/broken-$name" 2>&1 && code=0 || code=$?
    echo "exit $code" >>"$out/broken-$name"
    cp "$work/cards.json" /etc/nvidia-smi-double.json
done

$java -cp "/etc/hadoop/conf:$jars/*" $server.resourcemanager.ResourceManager >"$out/rm" 2>&1 &
$java -cp "/etc/hadoop/conf:$jars/*" $server.nodemanager.NodeManager >"$out/nm" 2>&1 &
for attempt in $(seq 120); do
    curl -s --noproxy '*' http://127.0.0.1:8088/ws/v1/cluster/nodes >"$out/nodes.json" 2>/dev/null || true
    ! grep -q RUNNING "$out/nodes.json" || break
    sleep 1
done
$java -cp "/etc/hadoop/conf:$jars/*" org.apache.spark.deploy.SparkSubmit \
    --properties-file /etc/spark/conf/spark-defaults.conf --master yarn --deploy-mode client \
    --conf spark.executor.instances=1 --conf spark.executor.memory=512m \
    --conf spark.yarn.am.memory=384m --conf spark.ui.enabled=false \
    --conf spark.driver.host=127.0.0.1 --conf "spark.yarn.jars=local:$jars/*" \
    --conf "spark.executor.extraJavaOptions=$opens" --conf "spark.yarn.am.extraJavaOptions=$opens" \
    --class Job "$work/job.jar" >"$out/job" 2>&1 || true
cp /var/log/container-executor "$out/calls"
