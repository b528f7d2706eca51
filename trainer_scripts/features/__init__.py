"""Outputs of frozen backbones, computed once and stored."""
