"""Readers of other systems' data that give the columns of the one table."""
