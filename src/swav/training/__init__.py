"""A run, from its configuration to its outputs, and what is done with a trained one."""
