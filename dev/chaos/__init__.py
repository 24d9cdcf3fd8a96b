"""Faults on purpose, on the real control plane, with figures."""
