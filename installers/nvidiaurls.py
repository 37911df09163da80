"""Where NVIDIA's things are: driver, CUDA, cuDNN, NCCL, open modules, by version and machine."""

from __future__ import annotations

from installers.compat import numbers, within
from installers.gpus import table

DOWNLOAD = "https://us.download.nvidia.com"
DEVELOPER = "https://developer.download.nvidia.com/compute"
GITHUB = "https://github.com/NVIDIA"


def driver(version: str, machine: str = "x86_64") -> str:
    """The stand-alone driver's runfile."""
    name = f"NVIDIA-Linux-{machine}-{version}.run"
    return f"{DOWNLOAD}/XFree86/Linux-{machine}/{version}/{name}"


def cuda(full: str) -> str:
    """The CUDA runfile of a full version; KeyError when its driver's tag is not known."""
    minor = ".".join(full.split(".")[:2])
    tag = table()["cuda"][minor]["runfiles"][full]
    return f"{DEVELOPER}/cuda/{full}/local_installers/cuda_{full}_{tag}_linux.run"


def cudnn(version: str, cuda_full: str) -> str:
    """The cuDNN archive; its name has changed three times."""
    here, cuda_number = numbers(version), numbers(cuda_full)
    major, minor = cuda_number[0], f"{cuda_number[0]}.{cuda_number[1]}"
    short = ".".join(version.split(".")[:3])
    base = f"{DEVELOPER}/redist/cudnn"
    if cuda_number >= (12,):
        name = f"cudnn-linux-x86_64-{version}_cuda{major}-archive.tar.xz"
        return f"{DEVELOPER}/cudnn/redist/cudnn/linux-x86_64/{name}"
    if here >= (8, 3, 1, 22):
        suffix = minor if here <= (8, 4, 1, 50) else str(major)
        name = f"cudnn-linux-x86_64-{version}_cuda{suffix}-archive.tar.xz"
        return f"{base}/v{short}/local_installers/{minor}/{name}"
    return f"{base}/v{short}/cudnn-{minor}-linux-x64-v{version}.tgz"


def nccl(version: str) -> str:
    """NCCL's source."""
    return f"{GITHUB}/nccl/archive/refs/tags/v{version}-1.tar.gz"


def open_modules(version: str) -> str:
    """The source of the open kernel modules."""
    return f"{GITHUB}/open-gpu-kernel-modules/archive/refs/tags/{version}.tar.gz"


def gencode(cuda: str) -> list[str]:
    """nvcc's -gencode arguments for whoever builds NCCL's source with this CUDA."""
    rows = table()["nccl_gencode"]
    names = [sm for row in rows if within(cuda, row["cuda"]) for sm in row["sm"]]
    return [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in names]
