"""The demos behind `make demo`, one per task."""
