"""Simulation actors and the pool that keeps them alive."""
