"""One module a command: parse, one call, print. Nothing heavy is imported outside the functions."""
