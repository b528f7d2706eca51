"""The catalogue of dishes: ingredients, their names in text, variants, and vessels. Nothing here draws."""
