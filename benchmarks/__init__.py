"""Benchmarks: what a solver costs, beside how right its answer is.

    python -m benchmarks.work_precision    # error against time and work, ours and the peers'
    python -m benchmarks.gradients         # time and memory of gradients

Both take `--quick` and `--out DIR`, need `pip install ".[bench]"` for all peers, and run on one pinned core.
"""
