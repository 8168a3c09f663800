"""Benchmarks: what a solver costs, beside how right its answer is.

    python -m benchmarks.work_precision    # error against time and work, ours and the peers'
    python -m benchmarks.gradients         # time and memory of gradients
    python -m benchmarks.peers             # time of a step beside C, the machine's limit and other libraries
    python -m benchmarks.measures          # what measures cost that look on while a run goes
    python -m benchmarks.compile_time      # what is paid before and around the stepping
    python -m benchmarks.tuning            # success and time of tuning a frequency

All take `--quick` and `--out DIR`, need `pip install ".[bench]"` for all peers (`".[bench,peers]"` the third), and run
on one pinned core.
"""
