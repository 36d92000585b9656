"""The machine and the versions that numbers belong to."""

import os
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("keras", "jax", "keras-tuner", "optuna", "scikit-learn", "numpy")


def describe() -> dict[str, str]:
    """Processor, cores, memory, system and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": f"{_processor()}, {cores} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        **{package: metadata.version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
