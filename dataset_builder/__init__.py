"""Recipes to labelled, illustrated, published rows of `flavour-sd`."""
