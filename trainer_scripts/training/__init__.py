"""A training run: its data, its folder, its callbacks."""
