"""Looking after it: what is there, whether it is right, and catching up by hand."""
