"""The flavour-fusion model family."""
