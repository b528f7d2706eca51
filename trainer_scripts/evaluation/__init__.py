"""Definitions: scores, decisions, predictions, intervals, baselines, ablations."""
