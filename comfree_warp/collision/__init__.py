"""Which geoms are close, where they touch, and whether what was found can be."""
