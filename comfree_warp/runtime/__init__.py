"""Capturing, compiling and memory: what needs the insides of Warp and MuJoCo Warp."""
