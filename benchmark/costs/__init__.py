"""What single features cost a simulation: the memory of contacts, streaming, a browser page."""
