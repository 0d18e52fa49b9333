"""Learning from handoffs: sampling, function classes, IC-Q in one compiled loop, and its population form."""
