"""Shared parts of all tasks: their base class, the Trainer, starting points, graphs for export."""
