"""Arguments of a run and of the command lines, their checks, and the reading of training configurations."""
