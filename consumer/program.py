"""The program `fleettickets`: every command, in the order in which `--help` shows them."""

import typer

from consumer.commands.acknowledge import acknowledge
from consumer.commands.beating import beating
from consumer.commands.capture_history import capture_history
from consumer.commands.consume import consume
from consumer.commands.discard import discard_letters
from consumer.commands.doctor import show_doctor
from consumer.commands.drain import drain
from consumer.commands.explain import explain
from consumer.commands.feeds import feeds
from consumer.commands.geocode import geocode
from consumer.commands.import_csv import import_local_file
from consumer.commands.migrate import migrate_database
from consumer.commands.preview import preview
from consumer.commands.rebuild_history import rebuild_history
from consumer.commands.rejects import rejects
from consumer.commands.replaying import replays_of_ledger
from consumer.commands.reseed import reseed
from consumer.commands.serve import serve
from consumer.commands.served import served_folders
from consumer.commands.settling import require_database, settled_by_ledger
from consumer.commands.status import show_status
from consumer.commands.verify import verify
from consumer.demo.command import demo
from publisher.commands.broker_users import make_broker_users
from publisher.commands.dead_letters import letters
from publisher.commands.health import ask_health
from publisher.commands.notifications import set_notifications
from publisher.commands.poll import poll
from publisher.commands.sqs import carry_from_sqs
from publisher.commands.topology import declare_topology
from publisher.commands.webhook import webhook
from publisher.program import Known, run

program = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Trouble-ticket change files from a bucket into PostgreSQL the moment they arrive, exactly once.\n\n"
    "Settings come from the environment or a .env file: DATABASE_URL, RABBITMQ_URL, RUSTFS_ENDPOINT, "
    "RUSTFS_ACCESS_KEY, RUSTFS_SECRET_KEY, RUSTFS_BUCKET, RUSTFS_REGION and FLEETTICKETS_*; see docs/.",
)
program.command("migrate")(migrate_database)
program.command("consume")(consume)
program.command("status")(show_status)
program.command("verify")(verify)
program.command("explain")(explain)
program.command("acknowledge")(acknowledge)
program.add_typer(rejects, name="rejects")
program.command("doctor")(show_doctor)
program.command("health")(ask_health)
program.command("serve")(serve)
program.command("drain")(drain)
program.command("import-csv")(import_local_file)
program.command("preview")(preview)
program.command("reseed")(reseed)
program.command("capture-history")(capture_history)
program.command("rebuild-history")(rebuild_history)
program.add_typer(geocode, name="geocode")
program.add_typer(feeds, name="feeds")
program.command("demo")(demo)
program.command("topology")(declare_topology)
program.command("broker-users")(make_broker_users)
program.command("poll")(poll)
program.command("webhook")(webhook)
program.command("sqs")(carry_from_sqs)
program.command("notifications")(set_notifications)
letters.command("discard")(discard_letters)
program.add_typer(letters, name="dead-letters")


KNOWN = Known(served_folders, settled_by_ledger, replays_of_ledger, require_database, beating)


def main() -> None:
    """The entry point of the installed program."""
    run(program, KNOWN)
