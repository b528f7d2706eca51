"""The tasks: labels, training, scores, baselines and files of each."""
