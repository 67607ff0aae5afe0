"""What strangers wrote, made fit for a terminal: it must neither steer it nor look like lines of ours. Pure."""


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters, half characters and marks of direction spelled out; `lines` keeps its lines."""
    return "".join(char if char.isprintable() or (lines and char == "\n") else repr(char)[1:-1] for char in text)
