"""How much of a suite is run, by the names of its levels."""

SPEED = ("quick", "standard", "cuda")
FIDELITY = ("quick", "standard", "full")
