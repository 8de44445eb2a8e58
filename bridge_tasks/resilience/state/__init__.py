"""Where decisions are remembered: one port, and an adapter for each place."""
