#!/bin/sh
# A command that knows nothing of Sojourn, with a database user of its own for as long as it runs.
#
# sojourn up                # prints both addresses
# sh examples/count_orders.sh
set -eu
exec sojourn run --role orders-db/readonly --lasts 10m -- \
    psql --no-psqlrc --tuples-only --no-align --command "SELECT count(*) FROM orders"
