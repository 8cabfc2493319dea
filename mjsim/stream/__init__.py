"""State over TCP: packets, what may be unpickled, the server and the client."""
