"""What a dish is: ingredients, their names in text, dishes, variants, how they are served. Nothing here draws."""
