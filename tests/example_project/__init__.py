"""The shop and its demo."""
