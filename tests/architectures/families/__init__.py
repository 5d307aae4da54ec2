"""Networks by the library that makes them."""
