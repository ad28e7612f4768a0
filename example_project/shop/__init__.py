"""Customers, products, orders, and what follows from a change of theirs."""
