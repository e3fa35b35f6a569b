"""Which chips train, choose and test."""
