"""Each file answers one question and writes its table; run with ``python -m benchmarks.NAME``."""
