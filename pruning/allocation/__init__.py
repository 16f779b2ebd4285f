"""Which entries survive."""
