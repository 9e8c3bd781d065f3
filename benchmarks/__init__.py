"""The numbers that the README quotes, and the code that makes them."""
