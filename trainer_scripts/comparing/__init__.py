"""Several models on the same rows: tests, ablations, report, plots."""
