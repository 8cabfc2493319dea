"""Models: finding them, loading them, and the state that a run of one starts from."""
