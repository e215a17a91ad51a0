"""What lets tests start what they start however busy the machine is. Tests of the load itself say otherwise."""

from __future__ import annotations

AT_ANY_LOAD = {
    "PARALLEL_AGENTS_RESOURCE_MANAGEMENT__CPU__MAX_CPU_PERCENT": "100",
    "PARALLEL_AGENTS_RESOURCE_MANAGEMENT__CPU__THROTTLE_THRESHOLD": "100",
    "PARALLEL_AGENTS_EXECUTION__WORKER_POOL__AUTO_SCALE": "false",
}
