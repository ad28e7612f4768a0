"""Changes shown as they come, to whoever looks at a database: what ``waltail`` is made of."""
