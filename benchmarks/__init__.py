"""Measurements, one question to a file: `python -m benchmarks.call_overhead --json`. Nothing here is installed."""
