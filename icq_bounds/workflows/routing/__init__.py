"""A gateway and specialists around a request that nobody sees whole."""
