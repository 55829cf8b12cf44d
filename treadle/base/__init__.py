"""Names, units, settings and errors: what every other room may use."""
