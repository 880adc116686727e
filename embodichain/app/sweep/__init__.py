"""Sweeps: many runs that differ in a few keys, each a run of its own, and one report over all of them."""
