"""Faults injected into the real parts: what was lost, how long until they worked again, which promises held."""
