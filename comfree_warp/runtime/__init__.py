"""Capturing, compiling, memory; private names of Warp and MuJoCo Warp behind one wall."""
