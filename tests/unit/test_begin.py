"""The check of a container costs little: it reads in nothing that the command does not need."""

import subprocess
import sys

from tests.doubles.receiver import free_port

READ_IN = """
import sys
sys.argv = ["fleettickets", "health", sys.argv[1]]
from consumer.begin import main
try:
    main()
except SystemExit as ended:
    print(ended.code, *sorted({name.partition(".")[0] for name in sys.modules}))
"""
OTHERS = {"boto3", "botocore", "fastapi", "pika", "psycopg", "structlog", "uvicorn"}


def test_health_reads_in_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", READ_IN, str(free_port())], check=True, capture_output=True, text=True)
    status, *modules = done.stdout.split()
    assert status == "1"
    assert "nothing answers" in done.stderr
    assert "requests" in modules
    assert OTHERS.isdisjoint(modules)


def test_all_else_is_the_whole_program() -> None:
    done = subprocess.run([sys.executable, "-m", "consumer", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("fleettickets ")
    wrong = subprocess.run([sys.executable, "-m", "consumer", "health"], check=False, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
