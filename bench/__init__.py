"""Benchmarks: ratios to a baseline that is measured in the same run. Figures, not tests: ``python -m bench [name ...]``."""

import os

# What else keeps the machine busy makes everybody slow; that it holds starts of ours back would be no figure.
os.environ |= {
    "PARALLEL_AGENTS_RESOURCE_MANAGEMENT__CPU__MAX_CPU_PERCENT": "100",
    "PARALLEL_AGENTS_RESOURCE_MANAGEMENT__CPU__THROTTLE_THRESHOLD": "100",
    "PARALLEL_AGENTS_EXECUTION__WORKER_POOL__AUTO_SCALE": "false",
}
