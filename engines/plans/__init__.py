"""The compiled plan: read from a builder's log or an engine, estimated on a named device, and set beside another."""
