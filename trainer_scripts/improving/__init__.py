"""Better models from what is there: teachers, the mean of several seeds, and searches."""
