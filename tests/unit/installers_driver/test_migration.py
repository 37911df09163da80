"""Every key of today's GPU scripts works, or is named as retired with its successor."""

from __future__ import annotations

from pathlib import Path

import pytest

from installers import config, registry, retired
from installers.host import Host

PAGE = Path(__file__).resolve().parents[3] / "docs/migration.md"
#: Keys that install_gpu_driver.sh, its helpers, mig.sh and gce-proxy-setup.sh read.
TODAYS = {
    "http-proxy": "10.11.0.250:3128",
    "https-proxy": "10.11.0.250:3128",
    "proxy-uri": ":",
    "no-proxy": "a.example, .b.example",
    "http-proxy-pem-uri": "gs://bucket/ca.pem",
    "universe-domain": "googleapis.com",
    "dataproc-cluster-name": "mine",
    "project-id": "p",
    "custom-sources-path": "gs://bucket/x",
    "creating-image": "1",
    "swp-egress": "1",
    "invocation-type": "custom-images",
    "dataproc-role": "Worker",
    "ENABLE_MIG": "1",
    "MIG_CGI": "9,9",
    "install-gpu-agent": "false",
    "enable-gpu-monitoring": "false",
    "rapids-runtime": "SPARK",
    "spark-rapids-version": "25.08.0",
    "xgboost-version": "1.7.6",
    "gpu-driver-provider": "OS",
    "gpu-driver-version": "535.261.03",
    "gpu-driver-url": "https://us.download.nvidia.com/a/550.142/NVIDIA-Linux-x86_64-550.142.run",
    "cuda-version": "12.4",
    "cuda-url": "https://developer.download.nvidia.com/c/cuda_12.4.1_550.54.15_linux.run",
    "cudnn-version": "9.1.0.70",
    "nccl-version": "2.23.4",
    "cudnn-install-source": "tarball",
    "container-runtime": "docker",
    "private_secret_name": "efi-db-priv-key-042",
    "public_secret_name": "efi-db-pub-key-042",
    "secret_project": "project",
    "secret_version": "1",
    "modulus_md5sum": "ab" * 16,
    "cert_modulus_md5sum": "ab" * 16,
    "include-pytorch": "1",
    "include-tensorflow": "yes",
    "gpu-conda-env": "dpgce",
    "dataproc-temp-bucket": "bucket",
}


@pytest.mark.parametrize("key", TODAYS)
def test_the_page_has_every_key(key: str) -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert any(f"`{key}`" in row.split("|")[1] for row in rows)


def test_all_keys_together_are_understood(tmp_path: Path) -> None:
    one = config.from_attributes(TODAYS)
    assert one.node_key is not None
    assert one.modulus_md5 == "ab" * 16
    assert one.image_build
    assert one.pem_uri == "gs://bucket/ca.pem"
    assert one.proxy.https is not None
    assert {"a.example", ".b.example", ".internal", "mine-m"} <= set(one.proxy.no_proxy)
    for installer in registry.load(list(registry.ORDER), one):
        assert installer.refuse(Host(tmp_path)) is not None


def test_plans_name_what_is_retired(tmp_path: Path) -> None:
    one = config.from_attributes(TODAYS)
    host = Host(tmp_path, offline=True)
    notes = [
        note for i in registry.load(list(registry.ORDER), one) for note in i.contract(host).notes
    ]
    for key in retired.EVERY:
        assert any(note.startswith(f"{key} is retired") for note in notes), key
        assert "retired" in next(
            line for line in PAGE.read_text().splitlines() if f"`{key}`" in line
        )
    assert retired.notes({}, retired.EVERY) == []
