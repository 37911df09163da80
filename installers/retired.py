"""Metadata keys of today's scripts that mean nothing here any more, and what took their place.

A key that is set and silently ignored is a promise broken; so a plan names each of them.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Key → its successor, in words. docs/migration.md has the keys that still work.
CUDA = {
    "cudnn-install-source": "nothing: cuDNN comes as a package, in the version of cudnn-version",
}
ENVIRONMENTS = {
    "gpu-conda-env": "airlock-environments: an environment has the name of its lock",
}
DEFERRED = {
    "install-gpu-agent": "the Ops Agent, which reads the GPUs' metrics from NVML itself",
    "enable-gpu-monitoring": "the Ops Agent, which reads the GPUs' metrics from NVML itself",
    "rapids-runtime": "spark:spark.plugins=com.nvidia.spark.SQLPlugin in the cluster's properties",
    "spark-rapids-version": "that rapids-4-spark jar in /usr/lib/spark/jars of the image",
    "xgboost-version": "those xgboost4j jars in /usr/lib/spark/jars of the image",
}
#: Of the proxy script and of image builds.
ADOPT = {
    "custom-sources-path": "invocation-type=custom-images, which says that this is an image",
    "creating-image": "invocation-type=custom-images, which says that this is an image",
    "swp-egress": "the verb probe, which asks the network itself",
    "project-id": "dataproc-cluster-name, with which every name below .internal goes direct",
}
EVERY = {**CUDA, **ENVIRONMENTS, **DEFERRED, **ADOPT}


def notes(attributes: Mapping[str, str], keys: Mapping[str, str]) -> list[str]:
    """What a plan says of retired keys that are set."""
    return [
        f"{key} is retired and does nothing; its successor is {successor}"
        for key, successor in keys.items()
        if (attributes.get(key) or "").strip()
    ]
