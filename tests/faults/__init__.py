"""Faults put in for real: kills, dead servers, dead networks, rivals; and consumers that are wrong on purpose."""
