"""HTTP itself: connections, bodies, queries, answers, streams, errors. Knows no resource of Docker's API."""
