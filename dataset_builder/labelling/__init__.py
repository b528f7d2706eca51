"""From the words of a recipe to its flavour: the rule, the lexicon, soft labels, reports."""
