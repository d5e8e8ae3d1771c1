"""What Longshore costs, measured: `python -m benchmarks`."""
