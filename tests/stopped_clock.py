"""A clock that moves only when a test, or a sleeper, moves it."""


class StoppedClock:
    """Call it for the time; `sleep` is the sleeper to inject beside it. Seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
