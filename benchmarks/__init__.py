"""Measurements, each a module: python -m benchmarks.NAME [--quick]. The last line printed is one JSON object."""
