"""The program `fleettickets`: every command, in the groups and the order in which `--help` shows them."""

from importlib.metadata import version
from typing import Annotated

import typer

from consumer.commands.acknowledge import acknowledge
from consumer.commands.alerts import watching_for_trouble
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

_EXAMPLES = """\
**Examples**

- `fleettickets status --watch`: do files flow, and if not, why and what to do
- `fleettickets explain 2026-06-25T142000.csv`: the life of one file; `--ticket INC0012345`: of a ticket
- `fleettickets dead-letters replay --group GROUP`: failed files once more, after what was wrong is mended
- `fleettickets drain --since 2026-06-01 --apply`: begin with a bucket that has years in it
- `fleettickets migrate && fleettickets topology && fleettickets consume`: set up, and run
"""
program = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trouble-ticket change files from a bucket into PostgreSQL the moment they arrive, exactly once.\n\n"
    "Settings come from the environment or a .env file: DATABASE_URL, RABBITMQ_URL, RUSTFS_ENDPOINT, "
    "RUSTFS_ACCESS_KEY, RUSTFS_SECRET_KEY, RUSTFS_BUCKET, RUSTFS_REGION and FLEETTICKETS_*; see docs/.",
    epilog=_EXAMPLES,
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fleettickets {version('fleettickets')}")
        raise typer.Exit


@program.callback()
def of_all(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version, and end.")
    ] = False,
) -> None:
    """What every command has."""


_LOOK, _MEND, _RUN, _SET_UP = "Look", "Mend", "Run", "Set up"
program.command("status", rich_help_panel=_LOOK)(show_status)
program.command("verify", rich_help_panel=_LOOK)(verify)
program.command("explain", rich_help_panel=_LOOK)(explain)
program.command("doctor", rich_help_panel=_LOOK)(show_doctor)
program.command("health", rich_help_panel=_LOOK)(ask_health)
program.add_typer(rejects, name="rejects", rich_help_panel=_LOOK)
program.command("preview", rich_help_panel=_LOOK)(preview)
letters.command("discard")(discard_letters)
program.add_typer(letters, name="dead-letters", rich_help_panel=_MEND)
program.command("drain", rich_help_panel=_MEND)(drain)
program.command("import-csv", rich_help_panel=_MEND)(import_local_file)
program.command("acknowledge", rich_help_panel=_MEND)(acknowledge)
program.command("capture-history", rich_help_panel=_MEND)(capture_history)
program.command("rebuild-history", rich_help_panel=_MEND)(rebuild_history)
program.add_typer(geocode, name="geocode", rich_help_panel=_MEND)
program.command("consume", rich_help_panel=_RUN)(consume)
program.command("poll", rich_help_panel=_RUN)(poll)
program.command("webhook", rich_help_panel=_RUN)(webhook)
program.command("sqs", rich_help_panel=_RUN)(carry_from_sqs)
program.command("serve", rich_help_panel=_RUN)(serve)
program.command("demo", rich_help_panel=_RUN)(demo)
program.command("migrate", rich_help_panel=_SET_UP)(migrate_database)
program.command("topology", rich_help_panel=_SET_UP)(declare_topology)
program.command("broker-users", rich_help_panel=_SET_UP)(make_broker_users)
program.command("notifications", rich_help_panel=_SET_UP)(set_notifications)
program.command("reseed", rich_help_panel=_SET_UP)(reseed)
program.add_typer(feeds, name="feeds", rich_help_panel=_SET_UP)


KNOWN = Known(served_folders, settled_by_ledger, replays_of_ledger, require_database, beating, watching_for_trouble)


def main() -> None:
    """The entry point of the installed program."""
    run(program, KNOWN)
