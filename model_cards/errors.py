"""The error of this package."""


class CardError(ValueError):
    """A card or a file that feeds it is refused; the message names the fault and the remedy."""
