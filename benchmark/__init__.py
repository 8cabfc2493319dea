"""Speed and fidelity of the engines, and sweeps over them: run as `python -m benchmark.NAME`."""
