"""What is shown to a person: strangers' words, which must neither steer a terminal nor look like ours; times. Pure."""


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters, half characters and marks of direction spelled out; `lines` keeps its lines."""
    return "".join(char if char.isprintable() or (lines and char == "\n") else repr(char)[1:-1] for char in text)


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "unknown"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
