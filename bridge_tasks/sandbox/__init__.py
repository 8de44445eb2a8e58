"""Both services and a Redis, for machines that have none: real in what they do, faulty on demand.

For demonstrations and tests. Nothing here listens beyond 127.0.0.1, and nothing imports it but the command line.
"""
