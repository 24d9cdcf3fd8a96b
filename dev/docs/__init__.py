"""Makes the parts of the documentation that restate the code: `python -m dev.docs --write` or `--check`."""
