"""The exceptions of this package that are not plain TypeError or ValueError."""


class DataError(ValueError):
    """A file or folder is damaged or does not hold what was asked of it.

    The message opens with the name of the file, then the reason, so that a log says which file to fetch again.
    """

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = str(name)
        self.reason = reason

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str]]:
        # BaseException pickles self.args (one string), which __init__ does not take; data-loader workers do pickle it.
        return type(self), (self.name, self.reason)


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and this machine or this build does not have it; the message says why."""


class RankLost(RuntimeError):
    """A process that holds a part of the data has ended or does not answer; the message says what was going on."""
