"""``hcl``, the console of the compatibility list: the one part of this package that knows the rest of the project."""
