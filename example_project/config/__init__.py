"""The shop's Django configuration."""
