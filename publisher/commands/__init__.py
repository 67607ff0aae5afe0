"""The publisher's commands, a file each."""
