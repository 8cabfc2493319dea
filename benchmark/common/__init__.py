"""What all benchmarks share: contenders, timing, statistics, and the machine they ran on."""
