"""What `verify` finds on a stage."""

from tests.stage.stage import Stage


def findings(stage: Stage, *options: str) -> dict[str, list[str]]:
    """Each kind with what it names."""
    ended = stage.run("verify", "--json", *options)
    assert ended.stderr == ""
    verdict = stage.json(ended)
    found = {kind: [each["subject"] for each in of["examples"]] for kind, of in verdict["discrepancies"].items()}
    assert {kind: of["count"] for kind, of in verdict["discrepancies"].items()} == {k: len(v) for k, v in found.items()}
    assert ended.returncode == (1 if found else 0)
    return found
