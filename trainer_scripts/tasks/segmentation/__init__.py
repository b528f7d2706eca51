"""A class for each pixel, and the ingredients of a picture."""
