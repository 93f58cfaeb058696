"""Benchmarks: scripts that print ratios to a baseline of the same run."""
