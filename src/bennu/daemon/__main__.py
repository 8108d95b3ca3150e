"""`python -m bennu.daemon` is `bennud`."""

from bennu.daemon import main

main()
