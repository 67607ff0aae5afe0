"""A public data set's shape: a city's service requests, with the names that New York's 311 has in its downloads."""

import random

from tests.stage.feeds import lines

COLUMNS = (
    "Unique Key", "Created Date", "Closed Date", "Agency", "Agency Name", "Complaint Type", "Descriptor",
    "Location Type", "Incident Zip", "Incident Address", "Street Name", "Cross Street 1", "Cross Street 2",
    "Intersection Street 1", "Intersection Street 2", "Address Type", "City", "Landmark",
    "Facility Type", "Status", "Due Date", "Resolution Description", "Resolution Action Updated Date",
    "Community Board", "BBL", "Borough", "X Coordinate (State Plane)", "Y Coordinate (State Plane)",
    "Open Data Channel Type", "Park Facility Name",
    "Park Borough", "Vehicle Type", "Taxi Company Borough", "Taxi Pick Up Location", "Bridge Highway Name",
    "Bridge Highway Direction", "Road Ramp", "Bridge Highway Segment", "Latitude", "Longitude",
)  # fmt: skip
"""Its 41 but for the last, Location, which repeats two others."""


def requests(count: int, seed: int = 1, first: int = 60_000_001) -> list[dict[str, str]]:
    """So many, newest last. Created in ISO form, updated in the form of a download: 01/31/2024 10:05:00 AM."""
    chosen = random.Random(seed)
    found = []
    for number in range(count):
        day, hour, minute = chosen.randint(1, 28), chosen.randint(0, 11), chosen.randint(0, 59)
        is_closed = chosen.random() < 0.6
        found.append(
            {
                "Unique Key": str(first + number),
                "Created Date": f"2024-01-{day:02}T{hour:02}:{minute:02}:00.000",
                "Closed Date": f"2024-02-{day:02}T{hour:02}:{minute:02}:00.000" if is_closed else "",
                "Agency": chosen.choice(["NYPD", "DOT", "HPD"]),
                "Complaint Type": chosen.choice(["Noise - Residential", "Pothole", "HEAT/HOT WATER"]),
                "Incident Zip": chosen.choice(["10001", "11201", "00083"]),
                "Incident Address": f"{chosen.randint(1, 999)} BROADWAY",
                "City": chosen.choice(["NEW YORK", "BROOKLYN"]),
                "Status": "Closed" if is_closed else "In Progress",
                "Resolution Description": "Looked at, and mended" if is_closed else "",
                "Resolution Action Updated Date": f"01/{day:02}/2024 {hour + 1:02}:{minute:02}:00 AM",
                "BBL": str(chosen.randint(1_000_000_000, 5_000_000_000)),
                "Borough": chosen.choice(["MANHATTAN", "BROOKLYN"]),
                "X Coordinate (State Plane)": str(chosen.randint(900_000, 1_000_000)),
                "Latitude": f"40.{chosen.randint(100_000, 999_999)}",
                "Longitude": f"-73.{chosen.randint(100_000, 999_999)}",
            }
        )
    return found


def csv(rows: list[dict[str, str]]) -> bytes:
    return lines([COLUMNS, *([row.get(name, "") for name in COLUMNS] for row in rows)])
