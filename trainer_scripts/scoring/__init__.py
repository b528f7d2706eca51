"""Saved models, their rows, their scores and predictions."""
