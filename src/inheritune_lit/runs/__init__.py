"""A run's folder, read: receipt, recipe, curves, and where its checkpoint comes from."""
