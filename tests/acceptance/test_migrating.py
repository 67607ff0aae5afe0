"""`migrate` beside another one, and when the server refuses: told in one line, and never waited for in silence."""

import signal

import psycopg

from tests.stage.stage import Stage, wait_until


def test_another_migration_is_waited_for_and_told_and_the_wait_can_be_stopped(stage: Stage) -> None:
    with psycopg.connect(stage.database, application_name="another one") as other, other.transaction():
        other.execute("LOCK TABLE public.fleettickets_migrations IN SHARE ROW EXCLUSIVE MODE")
        waiting, stopped, killed = stage.start("migrate"), stage.start("migrate"), stage.start("migrate")
        for process in (waiting, stopped, killed):
            wait_until(lambda process=process: "another migration" in process.output(), "who is waited for is told")  # type: ignore[misc]
            assert f"process {other.info.backend_pid} (" in process.output()
            assert "another one" in process.output()
        stopped.signal(signal.SIGINT)
        assert stopped.wait() != 0
        assert "Traceback" not in stopped.output()
        killed.terminate()
        assert killed.wait() != 0
        assert waiting.running
    assert waiting.wait() == 0
    assert "0 migrations done; the schema is current" in waiting.output()


def test_what_the_server_says_of_a_migration_is_one_line_that_names_it(stage: Stage) -> None:
    stage.connection.execute("DELETE FROM public.fleettickets_migrations WHERE name = '22_roles'")
    refused = stage.run("migrate")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith('fleettickets: postgres refuses: migration 22_roles: function "role_name" already exists')
    assert line.endswith("nothing of it is done: mend that and migrate again")
