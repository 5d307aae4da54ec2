"""Where the inputs of data-free restoration come from."""
