"""Controls: what shows that an audit which rebuilt nothing had an instrument that works."""
