"""`python -m consumer`: the program `fleettickets`."""

from consumer.program import main

main()
