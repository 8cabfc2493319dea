"""Run, stream, record and watch MuJoCo simulations on machines without a display."""
