"""Benchmarks: scripts that print ratios to a reference of the same run."""
