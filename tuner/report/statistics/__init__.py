"""Statistics as pure functions on arrays: one method a module."""
