"""Celery's transports, whose messages have records in the ledger: `redis`, over `sentinel` too, and `rabbitmq`.

`recording` is what all do with a message, `admission` what a worker takes from a queue. A transport decides
nothing about a job: the ledger's scripts do.
"""
