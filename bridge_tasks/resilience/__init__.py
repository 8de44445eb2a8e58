"""What stands between a call and a socket: policies that decide, state that remembers, transports that act."""
