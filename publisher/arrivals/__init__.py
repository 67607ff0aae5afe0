"""What says that a file is there: the bodies of stores, our own messages, and the keys they name. Pure."""
