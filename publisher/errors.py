"""The one error tree. What matters to a caller is which leaf it has: give up, wait, or try again."""


class FleetticketsError(Exception):
    """Anything this program raises on purpose; its text is one line fit for an operator."""


class Misconfigured(FleetticketsError):
    """The operator has to change something; nothing was touched."""


class LoginRefused(Misconfigured):
    """The service `dependency` is there, and lets nobody in with what it is shown."""

    def __init__(self, dependency: str, told: str) -> None:
        super().__init__(told)
        self.dependency = dependency


class WrongSchema(Misconfigured):
    """The database is not of this version of the program: `found` says how, and `advice` what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"the database {found}; {advice}")
        self.found = found
        self.advice = advice


class Permanent(FleetticketsError):
    """Trying again cannot help: dead letter. `reason` is a short stable word for grouping."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class DependencyDown(FleetticketsError):
    """A whole dependency is away; waiting helps and burns no attempt of the file in hand.

    `where` is the host and port that this process was told, and becomes a part of the detail.
    """

    def __init__(self, dependency: str, detail: str, where: str = "") -> None:
        self.detail = f"{detail} ({where})" if where else detail
        self.dependency = dependency
        super().__init__(f"{dependency} is not available: {self.detail}")


class DatabaseDown(DependencyDown):
    """The database is away, or ends what it is asked."""


class FailsForThisOne(DependencyDown):
    """The dependency is there for others and fails this one piece of work: they need not wait for it."""


class ObjectUnavailable(FailsForThisOne):
    """The store does not get this one object out for now."""


class StatementFailed(FailsForThisOne):
    """The database failed in the middle of this one piece of work, and may serve others."""


class HeldBack(FailsForThisOne):
    """What fails this one, `error`, is on record; `seconds` since the first time."""

    def __init__(self, error: FailsForThisOne, seconds: float) -> None:
        super().__init__(error.dependency, error.detail)
        self.error = error
        self.seconds = seconds


class HeldByAnother(DependencyDown):
    """Somebody else is doing this one thing that only one may do at a time."""


class WatchedByAnother(HeldByAnother):
    """Another process watches for trouble, and tells it."""

    def __init__(self) -> None:
        super().__init__("alerts", "another process watches")


class KeyInHand(HeldByAnother):
    """Somebody else has this key in hand, in whatever version."""


class SlowBody(HeldByAnother):
    """This object's body comes slowly, and no more of that kind is read now, or none at all since the process ends."""

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(dependency, detail)
        self.args = (f"{dependency} gives it slowly: {detail}",)


class LockTimeout(HeldByAnother):
    """A lock of the database was not had in time; `detail` says who may have it."""

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(dependency, detail)
        self.args = (f"{dependency} gives no lock in time: {detail}",)


class NotConfirmed(DependencyDown):
    """The broker did not take a message on, as far as we know. `reason` is a short stable word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__("rabbitmq", detail)
        self.args = (f"rabbitmq has not confirmed the message: {detail}",)
        self.reason = reason


class NoSuchLetter(FleetticketsError):
    """Somebody named a dead letter that `queue` does not have; `wanted` is what he said of it."""

    def __init__(self, queue: str, wanted: str) -> None:
        super().__init__(f"no dead letter in {queue} has {wanted}; see: fleettickets dead-letters list --each")
        self.queue = queue
        self.wanted = wanted


class Refused(FleetticketsError):
    """A dependency is there and says no to this one request: a bug of ours, or a right that is missing."""

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(f"{dependency} refuses: {detail}")
        self.dependency = dependency
        self.detail = detail


class ObjectRefused(Refused):
    """The store does not give, show or move this one object."""


class StoreRefused(Refused):
    """The store takes no such object or setting of the bucket."""


class StatementRefused(Refused):
    """The database does not do what a statement says."""


class ObjectMissing(FleetticketsError):
    """The bucket has no object of that key."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"no object {key!r} in bucket {bucket!r}")
        self.bucket = bucket
        self.key = key


class ObjectChanged(FleetticketsError):
    """The object is no longer the version that was read."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"object {key!r} in bucket {bucket!r} has been replaced meanwhile")
        self.bucket = bucket
        self.key = key
