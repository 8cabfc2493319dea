"""The fidelity suite: scenes whose right answer is known, run over many timesteps."""
