"""How a reference sample was drawn, and from which map."""
