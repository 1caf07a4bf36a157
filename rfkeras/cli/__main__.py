"""`python -m rfkeras.cli`: the same as the console command `rfkeras`."""

from rfkeras.cli.main import main

main()
