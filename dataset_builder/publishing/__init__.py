"""Auditing a data set and releasing it, or a model, as one commit and one tag."""
