"""Closed-loop evaluation on seeds that training cannot draw, with confidence intervals."""
