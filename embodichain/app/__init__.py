"""The only package that knows everything and puts it together."""
