#!/bin/bash
# Configuration of the machine that builds the image, on its way to every node of every cluster.
set -euo pipefail
mkdir -p /etc/hadoop/conf /etc/spark/conf
cat >/etc/hadoop/conf/yarn-site.xml <<END
<configuration>
<property><name>yarn.nodemanager.resource-plugins</name><value>yarn.io/gpu</value></property>
<property><name>yarn.resourcemanager.hostname</name><value>$(hostname -f)</value></property>
</configuration>
END
echo 'spark.executor.resource.gpu.amount 4' >>/etc/spark/conf/spark-defaults.conf
