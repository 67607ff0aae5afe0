"""`python -m consumer`: the program `fleettickets`."""

from consumer.begin import main

main()
