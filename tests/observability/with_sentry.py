"""Sentry as an application switches it on, for workers and orchestrators of a test; its reports go nowhere."""

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport


class Silent(Transport):
    """Drops everything."""

    def capture_envelope(self, envelope: Envelope) -> None:
        pass


sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1",
    transport=Silent,
    integrations=[CeleryIntegration(propagate_traces=True)],
    traces_sample_rate=1.0,
)
