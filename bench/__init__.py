"""Benchmarks: ratios to a baseline that is measured in the same run. Figures, not tests: ``python -m bench [name ...]``."""
