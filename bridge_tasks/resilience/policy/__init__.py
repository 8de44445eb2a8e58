"""Pure decisions: (state, event, now) -> (state, decision). No clock, no chance, no I/O lives here."""
