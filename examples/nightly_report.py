"""A program without an event loop that gets a database password, and hands it to psql.

sojourn up                        # prints both addresses
python examples/nightly_report.py
"""

import os
import subprocess

from broker.client.blocking import task


def main() -> None:
    """Count the orders."""
    with task(purpose="the nightly report", roles=["orders-db/readonly"]) as work:
        secret = work.secret("orders-db/readonly")
        given = {
            "PGHOST": str(secret.fields["host"]),
            "PGPORT": str(secret.fields["port"]),
            "PGDATABASE": str(secret.fields["database"]),
            "PGUSER": str(secret.fields["username"]),
            "PGPASSWORD": secret["password"].reveal(),
        }
        query = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", "SELECT count(*) FROM orders"]
        subprocess.run(query, env={**os.environ, **given}, check=True)
        print(work.end(wait=True).summary)


main()
