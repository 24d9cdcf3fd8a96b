"""Loaded into a process by its path, not imported: see `sitecustomize.py`."""
