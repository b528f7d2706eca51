"""Command lines that train, score and compare the models."""
