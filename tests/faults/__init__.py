"""Faults, each of them real: what happens, what is promised and which test shows it is in README.md."""
