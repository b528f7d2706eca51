"""Card templates and the code that fills them from a finished run."""
