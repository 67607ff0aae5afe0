"""Where the installed program begins.

`health` is asked again and again, by the check of every container: it goes without the rest of the program, which takes
a second of a core to read in, and many where all containers check at once.
"""

import sys


def main() -> None:
    if sys.argv[1:2] == ["health"]:
        from publisher.commands import health  # noqa: PLC0415 - nothing else is read in

        health.alone(sys.argv[2:])
    else:
        from consumer import program  # noqa: PLC0415 - all of it

        program.main()
