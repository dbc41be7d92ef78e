"""`python -m broker` is `sojourn`."""

from broker.command import main

main()
