"""Sentences about a picture."""
