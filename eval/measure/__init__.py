"""Measurement: episodes, latencies, and where results come from."""
