"""Pretraining of the tiny image encoder that ships with this package."""
